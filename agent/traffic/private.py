"""Private ports: loopback ports at which a relayed child listens, one set for each start.

A child is told its numbers before it binds them, so nobody can keep them for it. They are taken at random
from where the kernel takes no port of an outgoing connection (ip_local_port_range in ip(7)). What is left
is a program that binds the same number by itself in that moment: the start fails then, and the next one
gets others.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Sequence
from pathlib import Path

HOST = "127.0.0.1"
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RANGE_DEFAULT = (32768, 60999)
_HIGHEST = 65535
_LOWEST = 10_000  # below it people look for ports of their own
_ENOUGH = 1000  # ports above the kernel's range that make a choice of their own
_TRIES = 200


def free_ports(names: Sequence[str], taken: Collection[int]) -> dict[str, int]:
    """A free port for each name, none of them in `taken`. Raises OSError when there are none to be had."""
    found: dict[str, int] = {}
    choices = _choices()
    for name in names:
        found[name] = _free_port(choices, {*taken, *found.values()})
    return found


def _choices() -> range:
    try:
        low, high = map(int, _RANGE_FILE.read_text().split())
    except (OSError, ValueError):
        low, high = _RANGE_DEFAULT
    if _HIGHEST - high >= _ENOUGH:
        return range(high + 1, _HIGHEST + 1)
    if low - _LOWEST >= _ENOUGH:
        return range(_LOWEST, low)
    return range(low, high + 1)  # the whole of it is the kernel's: the risk is small all the same


def _free_port(choices: range, taken: Collection[int]) -> int:
    for _ in range(_TRIES):
        port = random.choice(choices)  # noqa: S311 (no secret)
        if port not in taken and _is_free(port):
            return port
    raise OSError(f"no free port among {choices.start} to {choices.stop - 1}")


def _is_free(port: int) -> bool:
    """Whether the port can be bound at every IPv4 address, for a child may bind more than it should."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
