"""The keeper's entry point: `emptybox run`, and process 1 of a container.

Only the standard library and this package are imported here, and not asyncio: the keeper lives long
and stays small.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from agent.keeper.loop import Keeper
from agent.keeper.spawn import PR_SET_CHILD_SUBREAPER, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(agent_argv: Sequence[str], command: Sequence[str] | None = None) -> int:
    """Keep an agent, its children and its sockets until the end; returns the exit code.

    Args:
        agent_argv: the agent's arguments.
        command: what to start as the agent instead of `python -P -m agent _agent`.

    0: ended in order. 1: something had to be killed, or the agent died while ending. 2: the settings are
    wrong. Above 64: the agent's own code.
    """
    _tidy_descriptors()
    if os.getpid() != 1:
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return Keeper(command or [sys.executable, "-P", "-m", "agent", "_agent", *agent_argv]).run()


def _tidy_descriptors() -> None:
    """Make sure that 0, 1 and 2 are open, and that children inherit nothing else."""
    while True:
        fd = os.open("/dev/null", os.O_RDWR)
        if fd > 2:
            os.close(fd)
            break
        os.set_inheritable(fd, True)
    with contextlib.suppress(OSError):  # no /proc here, or the listing's own descriptor, which comes last
        for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
            if fd > 2:
                os.set_inheritable(fd, False)
