"""The first process of a PID namespace: takes care of those whose parents ended, and passes signals on.

    keeper -- init (pid 1 inside) -- program (a process group of its own, in init's session)

The kernel keeps from pid 1 every signal it has no handler for, so a program would not be ended by TERM in
that place. Signals that ask for an end go to the program's whole group, as the keeper meant them, others to
the program alone. It ends with the program and takes all others along; but a program that ends well and
leaves others behind has gone into the background, and they are waited for.

A *guest* goes into the PID namespace of another program, which has its init: what stays outside then is no
init, but passes on signals and codes all the same, and takes the program's group along.
"""

from __future__ import annotations

import contextlib
import os
import signal

from agent.keeper.confine import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT})


def split(keep: int, *, guest: bool = False) -> None:
    """Fork: returns in the program-to-be; the other process is the init and never returns. Raises OSError.

    `keep` is the one descriptor of the program-to-be that the init must not hold; it holds none at all.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        if guest:
            system.prctl(DEATH_SIGNAL, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return
    keep_alone(pid, max(keep, 2) + 64, guest=guest)


def keep_alone(program: int, below: int, *, guest: bool = False) -> NoReturn:
    """Be the init of a program that is there, with no descriptor under `below`."""
    code = 1
    try:
        os.closerange(0, below)
        code = _keep(program)
        if guest:
            with contextlib.suppress(OSError):
                os.killpg(program, signal.SIGKILL)
    finally:
        os._exit(code)


def _keep(program: int) -> int:
    """Wait for the end of the program and of who goes on in its place; returns the exit code."""
    ended: int | None = None
    while True:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # nobody is left
                return ended or 0
            if pid == 0:
                break
            if pid == program:
                ended = os.waitstatus_to_exitcode(status)
                if ended != 0:
                    return 128 - ended if ended < 0 else ended
        number = signal.sigwait(signal.valid_signals())
        if number != signal.SIGCHLD:
            _pass_on(program if ended is None else -1, number)


def _pass_on(program: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if program > 0 and number in ENDING:
            os.killpg(program, number)
        else:
            os.kill(program, number)
