"""A pool of threads that goes on with those it has when the system gives no more."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger(__name__)


class Threads(ThreadPoolExecutor):
    """As its base, but that work waits for one of the threads there are when another cannot be started.

    The base raises RuntimeError then, though the work is in its queue and will be done. Only while there is
    no thread at all it still does.
    """

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if not self._threads:
                raise
            log.warning("%d threads have to do: %s", len(self._threads), error)
