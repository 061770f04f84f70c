"""Ports for servers that are told their number before they start."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Below what Linux hands out for outgoing connections (ip(7), ip_local_port_range): no client takes one away.
_RANGE = range(10_000, 32_000)
_RESERVED: list[int] = []  # descriptors of locks, kept until this process ends


def free_port() -> int:
    """A TCP port nobody uses, and that no other test is given as long as this process lives."""
    locks = Path(tempfile.gettempdir()) / f"emptybox-test-ports-{os.geteuid()}"
    locks.mkdir(exist_ok=True)
    while True:
        port = random.choice(_RANGE)
        lock = os.open(locks / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as sock:
                sock.bind(("0.0.0.0", port))
        except OSError:
            os.close(lock)
            continue
        _RESERVED.append(lock)
        return port
