"""TCP ports that nobody uses."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 10_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 200


def free_port(avoid: set[int] | None = None) -> int:
    """A port free on loopback at this moment. Raises OSError when none is found.

    Below the range from which the kernel takes ports for outgoing connections (ip(7)): nobody's client
    can take it until it is used, not even one that knocks at it. `avoid` is added to.
    """
    avoid = set() if avoid is None else avoid
    highest = int(RANGE.read_text().split()[0]) - 1
    if highest < LOWEST + TRIES:
        highest = 65535
    for _ in range(TRIES):
        port = random.randint(LOWEST, highest)  # noqa: S311 - nothing secret
        if port not in avoid and _free(port):
            avoid.add(port)
            return port
    raise OSError("no free TCP port was found")


def _free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
