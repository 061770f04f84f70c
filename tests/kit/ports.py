"""Ports for servers that are told their number before they start."""

from __future__ import annotations

import random
import socket

# Below what Linux hands out for outgoing connections (ip(7), ip_local_port_range): no client takes one away.
_RANGE = range(10_000, 32_000)


def free_port() -> int:
    """A TCP port nobody uses at this moment; at random, because tests run side by side."""
    while True:
        port = random.choice(_RANGE)
        with socket.socket() as sock:
            try:
                sock.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
