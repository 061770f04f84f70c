"""The first process of a PID namespace: takes care of those whose parents ended, and passes signals on.

    keeper -- init (pid 1 inside) -- program (a process group of its own, in init's session)

The kernel keeps from pid 1 every signal it has no handler for, so a program would not be ended by TERM in
that place. Signals that ask for an end go to the program's whole group, as the keeper meant them, others to
the program alone. It ends with the program and takes all others along; but a program that ends well and
leaves others behind has gone into the background, and they are waited for.

A *guest* goes into the PID namespace of another program, which has its init: what stays outside then is no
init, but passes on signals and codes all the same, and takes the program's group along.

A program that somebody waits for is *attended*, in whichever namespace it is: whatever it starts, in
whichever session, becomes its attendant's child when its parent ends (PR_SET_CHILD_SUBREAPER), and is killed
once the program itself has ended, or when `LAST` comes, which is sent where KILL is meant.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from agent.keeper.confine import system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DEATH_SIGNAL, SUBREAPER = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
LAST = signal.SIGRTMAX
KILLING = 5.0  # seconds for those who were killed to be gone
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


def attend(keep: int, *, terminal: bool = False) -> None:
    """Fork: returns in the program-to-be; the other process is its attendant and never returns.

    `keep` is as for `split`. A `terminal`, which is descriptor 0, is the program's from then on; nobody is
    there who could let it go on when it is stopped from there, so it is never stopped. Raises OSError.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    system.prctl(SUBREAPER, 1)
    system.prctl(DEATH_SIGNAL, LAST)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        if terminal:
            os.tcsetpgrp(0, os.getpid())
        system.prctl(DEATH_SIGNAL, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return
    code = 1
    try:
        os.closerange(0, max(keep, 2) + 64)
        code = _wait(pid, os.WUNTRACED if terminal else 0)
        _end_all()
        if code < 0:  # as the program did
            if code != -signal.SIGKILL:
                signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.kill(os.getpid(), -code)
    finally:
        os._exit(code & 0xFF)


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


def _wait(program: int, flags: int) -> int:
    """Wait for the end of an attended program; returns its exit code, or the number of a signal below 0."""
    while True:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | flags)
            if pid == 0:
                break
            if os.WIFSTOPPED(status):
                _pass_on(pid, signal.SIGCONT)
            elif pid == program:
                return os.waitstatus_to_exitcode(status)
        number = signal.sigwait(signal.valid_signals())
        if number == LAST:
            return -signal.SIGKILL
        if number != signal.SIGCHLD:
            _pass_on(program, number)


def _end_all() -> None:
    """Kill every child, until there is none: of each that ends the children become ours."""
    until = time.monotonic() + KILLING
    me = f"/proc/self/task/{os.getpid()}/children"
    while time.monotonic() < until:
        with open(me, "rb", 0) as file:  # no codec: nothing can be imported where files are confined
            for pid in file.read().split():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.05)


def _pass_on(program: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if program > 0 and number in ENDING:
            os.killpg(program, number)
        else:
            os.kill(program, number)
