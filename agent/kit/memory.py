"""Memory that the C library keeps for later use."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give the system what was freed: each thread keeps what it once needed, malloc_trim(3). It blocks.

    Only glibc keeps it so.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
