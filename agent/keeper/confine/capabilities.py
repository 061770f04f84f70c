"""Capabilities (capabilities(7)): all sets of the process reduced to those that may be kept."""

from __future__ import annotations

import ctypes
import functools
import struct

from agent.keeper.confine.system import call, libc, machine, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

CALLS = {"x86_64": (125, 126), "aarch64": (90, 91)}  # capget, capset
BOUNDING_READ, BOUNDING_DROP = 23, 24
_HEADER = struct.pack("=Ii", 0x20080522, 0)  # version 3; this process
_SETS = struct.Struct("=6I")  # effective, permitted, inheritable: the low halves, then the high

_Room = ctypes.c_uint32 * 6


@functools.cache
def known() -> range:
    """The capabilities this kernel has."""
    for number in range(64):
        try:
            prctl(BOUNDING_READ, number)
        except OSError:
            return range(number)
    return range(64)


def bound(keep: Collection[int]) -> None:
    """Take all but `keep` out of the bounding set.

    Without CAP_SETPCAP nobody can; then `limit` does what counts, because with no_new_privs no program gets
    back what is out of the permitted set.
    """
    for number in known():
        if number not in keep and libc.prctl(BOUNDING_DROP, number, 0, 0, 0) != 0:
            return


def limit(keep: Collection[int]) -> None:
    """Take all but `keep` out of the other sets; the ambient one follows. Raises OSError."""
    mask = _mask(keep)
    words = read()
    if any(word & ~mask for word in words):
        low = [word & mask & 0xFFFFFFFF for word in words]
        high = [(word & mask) >> 32 for word in words]
        call(CALLS[machine()][1], _HEADER, _SETS.pack(*low, *high))


def read() -> tuple[int, int, int]:
    """Effective, permitted, inheritable. Raises OSError."""
    held = _Room()
    call(CALLS[machine()][0], _HEADER, held)
    return held[0] | held[3] << 32, held[1] | held[4] << 32, held[2] | held[5] << 32


def _mask(numbers: Collection[int]) -> int:
    return sum(1 << number for number in set(numbers))
