"""Progress on stderr: a line that is written over on a terminal, a line now and then in a log of CI."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TERMINAL, _LOG = 0.2, 10.0  # seconds between two lines


@contextmanager
def telling(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (bytes done, bytes in all) that tells how far `what` is, but not what is done at once."""
    terminal = sys.stderr.isatty()
    pause = _TERMINAL if terminal else _LOG
    last, shown = time.monotonic(), False

    def tell(done: int, total: int) -> None:
        nonlocal last, shown
        if time.monotonic() - last < pause:
            return
        last, shown = time.monotonic(), True
        share = f"{100 * done // total} %" if total else f"{done >> 20} MiB"
        sys.stderr.write(f"\r\x1b[K{what}: {share}" if terminal else f"{what}: {share}\n")
        sys.stderr.flush()

    try:
        yield tell
    finally:
        if terminal and shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
