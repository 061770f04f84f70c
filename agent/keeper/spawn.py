"""From fork(2) to execve(2): a child as it was ordered, or the step that failed.

The keeper has one thread, so what the child does between the two is ordinary Python. Each step's name
is sent back through a socket that the new program closes by starting (close-on-exec): its end without a
word means that the program runs. A child that is adopted sends its trap's listener before, one that is
confined (`confine`) what is in force.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import json
import os
import resource
import signal
import socket

from agent.keeper.adopt import trap
from agent.keeper.confine import init, spaces
from agent.keeper.confine.orders import Confinement, prepare
from agent.keeper.wire import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TIOCSCTTY = 0x540E  # ioctl_tty(2); without termios, which is a library to load
SIGNALS = frozenset(map(int, signal.valid_signals()))
prctl = ctypes.CDLL(None).prctl
prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def spawn(
    order: Mapping[str, Any],
    descriptors: Sequence[int],
    *,
    output: int | None = None,
    stdio: Sequence[int] = (),
    death_signal: int = signal.SIGKILL,
) -> tuple[int, int]:
    """Start a program in a session of its own; returns its pid and the socket that tells of failure.

    Args:
        order: `argv` and `environment`; and as in a `ChildRequest`, or left out: `slots` (whose names
            become LISTEN_FDNAMES), `adopt`, `directory`, `uid`, `gid`, `groups`, `umask`, `nice`, `oom`,
            `rlimits`, `cgroups`, `confine`, `container`, `attended`, `terminal`.
        descriptors: what becomes 3, 4, ...; nothing else is inherited but 0 (/dev/null), 1 and 2.
        output: becomes 1 and 2; None leaves the keeper's own.
        stdio: becomes 0, 1 and 2 instead, if given.
        death_signal: what it gets when the keeper dies.

    The socket (non-blocking, the caller closes it) has reports for `read_report`, until its end. Raises
    OSError when there is no process or descriptor to be had.
    """
    report, told = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    keeper, ids = os.getpid(), (os.geteuid(), os.getegid())
    confine = order.get("confine") or {}
    prepare(confine)
    apart = 0 if confine.get("join") else spaces.flags(confine.get("namespaces", ()))
    if order.get("container"):
        from agent.keeper import container  # once, for all copies
    # A signal between fork and the reset of handlers would be handled by the copy, and lost to the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    altered = _altered_signals()
    try:
        pid = spaces.fork(apart)
        if pid == 0:
            stage = ["setup"]
            try:
                told = _arrange(altered, descriptors, output, stdio, told)
                if order.get("terminal"):
                    fcntl.ioctl(0, TIOCSCTTY, 0)
                if order.get("adopt"):  # before any right to do so is given up
                    stage[0] = "adopt"
                    _give_trap(told)
                work = Confinement(confine, stage, ids)
                _limit(stage, order)
                work.furnish()
                work.begin()
                _become(stage, order)
                work.end()
                prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)  # after setuid, which clears it
                if os.getppid() not in (keeper, 0):  # 0: it is outside of our namespace
                    os._exit(1)
                stage[0] = "setup"
                if inside := order.get("container"):
                    work.held += inside["held"]
                    work.lacking |= inside["lacking"]
                if confine:  # which fails where the keeper is gone
                    held = json.dumps([work.held, work.lacking])
                    os.write(told, f"held\0{held}".encode())
                if inside:
                    container.run(inside, stage, told)
                if "pid" in confine.get("namespaces", ()):
                    init.split(told, guest=bool(confine.get("join")))
                if order.get("attended"):
                    init.attend(told, terminal=bool(order.get("terminal")))
                _exec(stage, order)
            except BaseException as error:
                code = getattr(error, "errno", None) or errno.EINVAL
                with contextlib.suppress(OSError):
                    os.write(told, f"{stage[0]}\0{code}\0{error}".encode(errors="replace"))
            finally:
                os._exit(127)
    except BaseException:
        os.close(report)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(told)
    os.set_blocking(report, False)
    return pid, report


def read_report(report: int) -> tuple[tuple[str, int, str] | None, list[int], list[Any]]:
    """The next report: of a failure (stage, errno, text), of descriptors, or of what a confinement holds.

    None of them: the program runs. Raises BlockingIOError while there is no report.
    """
    sock = socket.socket(fileno=report)
    try:
        data, descriptors = receive(sock, 4096)
    finally:
        sock.detach()
    if not data or descriptors:
        return None, descriptors, []
    stage, _, rest = data.decode(errors="replace").partition("\0")
    if stage == "held":
        return None, [], json.loads(rest)
    code, text = rest.split("\0", 1)
    return (stage, int(code), text), [], []


def _give_trap(told: int) -> None:
    """Set the trap and send its listener to the keeper. Raises OSError."""
    listener = trap.install()
    sock = socket.socket(fileno=told)
    send(sock, b"trap", [listener])
    sock.detach()
    os.close(listener)


@functools.cache
def _altered_signals() -> tuple[int, ...]:
    """Signals that are not at their default here. They are arranged before the first child, and stay so."""
    return tuple(n for n in sorted(SIGNALS) if signal.getsignal(n) != signal.SIG_DFL)


def _arrange(
    altered: Sequence[int], descriptors: Sequence[int], output: int | None, stdio: Sequence[int], told: int
) -> int:
    """Session, signals, and descriptors: 0 to 2, the given ones from 3 on, then the report (returned)."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in altered:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    out, err = (1, 2) if output is None else (output, output)
    first = stdio or (os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), out, err)
    wanted = [*first, *descriptors, told]
    # First all out of the way of the places to fill, then into them.
    above = max([*wanted, len(wanted)]) + 1
    for place, fd in enumerate(wanted):
        os.dup2(fd, above + place, inheritable=False)
    for place in range(len(wanted)):
        os.dup2(above + place, place, inheritable=place < len(wanted) - 1)
    return len(wanted) - 1


def _limit(stage: list[str], order: Mapping[str, Any]) -> None:
    """What it may use, as far as that takes rights that are given up afterwards."""
    for directory in order.get("cgroups") or ():
        stage[0] = "cgroup"
        spaces.write(f"{directory}/cgroup.procs", "0")
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for name, value in (order.get("rlimits") or {}).items():
        stage[0] = f"rlimit {name}"
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        if hard != resource.RLIM_INFINITY and not 0 <= value <= hard:  # also where we would be let raise it
            raise OSError(errno.EPERM, f"the agent's own hard limit is {hard}")
        resource.setrlimit(number, (value, value))
    if (nice := order.get("nice")) is not None:
        stage[0] = "nice"
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    if (oom := order.get("oom")) is not None:
        stage[0] = "oom_score_adj"
        spaces.write("/proc/self/oom_score_adj", str(oom))


def _become(stage: list[str], order: Mapping[str, Any]) -> None:
    """Identity, place."""
    if (umask := order.get("umask")) is not None:
        os.umask(umask)
    if (uid := order.get("uid")) is not None:
        stage[0] = "setgroups"
        os.setgroups(order["groups"])
        stage[0] = "setgid"
        os.setresgid(order["gid"], order["gid"], order["gid"])
        stage[0] = "setuid"
        os.setresuid(uid, uid, uid)
    if directory := order.get("directory"):
        stage[0] = "chdir"
        os.chdir(directory)


def _exec(stage: list[str], order: Mapping[str, Any]) -> NoReturn:
    """Be the program. Raises OSError, or ValueError on NUL bytes."""
    stage[0] = "exec"
    argv, environment = list(order["argv"]), dict(order["environment"])
    if (slots := order.get("slots")) and not order.get("adopt"):
        environment["LISTEN_PID"] = str(os.getpid())
        environment["LISTEN_FDS"] = str(len(slots))
        environment["LISTEN_FDNAMES"] = ":".join(name for _, _, name in slots)
    paths = [argv[0]]
    if "/" not in argv[0]:
        paths = [f"{d or '.'}/{argv[0]}" for d in environment.get("PATH", os.defpath).split(":")]
    refused: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    for path in paths:
        try:
            os.execve(path, argv, environment)  # noqa: S606 - no shell is meant
        except (FileNotFoundError, NotADirectoryError):
            if os.path.exists(path):  # so it is the program named in its first line that is missing
                stage[0] = "interpreter"
                raise
        except PermissionError as error:
            refused = error
    raise refused
