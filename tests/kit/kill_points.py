"""kill -9 at every change of the disk: work done in a process that dies before its first, second, ... one."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator

CHANGES = ("rename", "symlink", "unlink", "mkdir", "rmdir", "fsync", "write")
MOST = 500


def killed_before_each_change(work: Callable[[], object], before: Callable[[], object]) -> Iterator[int]:
    """Call `before` here and `work` in another process, killed one change later each time.

    Yields how many changes were made, once that process is dead; ends after one that got through.
    """
    for allowed in range(MOST):
        before()
        with warnings.catch_warnings():  # of forking beside threads: the child calls `work` and is gone
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _child(work, allowed)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
        else:
            assert os.WEXITSTATUS(status) == 0, "the work failed by itself; see its traceback"
        yield allowed
        if not os.WIFSIGNALED(status):
            return
    raise AssertionError(f"more than {MOST} changes")


def _child(work: Callable[[], object], allowed: int) -> None:
    left = allowed

    def counted(name: str) -> Callable[..., object]:
        real: Callable[..., object] = getattr(os, name)

        def change(*arguments: object, **options: object) -> object:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments, **options)

        return change

    try:
        for name in CHANGES:
            setattr(os, name, counted(name))
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)
