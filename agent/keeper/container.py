"""A container (OCI Runtime Specification 1.0) as a child: made by a runtime, kept by nobody but the kernel.

    keeper -- init (pid 1 of a PID and a mount namespace) -- program (made by the runtime, which is gone)

The init mounts the root, has the runtime start the container and go, and then waits as every init does
(`confine.init`): the program became its child when the runtime ended. When the init ends, and it does when
the keeper does, the kernel ends all processes of its PID namespace and takes away the mounts of its mount
namespace. What is left is files in the bundle's directory, and control groups.

    mounted --run --detach--> running --the program ends--> ended
        |
        +--the runtime fails, is killed, or is too slow--> ended
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time

from agent.keeper.confine import init, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

DEADLINE = 8.0  # seconds for the runtime's work: less than the agent waits for an answer
GROUPS = "/sys/fs/cgroup"
LOG, PID, STATE = "runtime.log", "pid", "state"  # files in the bundle's directory
LOG_MAX = 1 << 16
WORDS_MAX = 1500


class ContainerError(Exception):
    """The runtime's words."""


def run(wish: Mapping[str, Any], stage: list[str], told: int) -> NoReturn:
    """Be the init of a container, from a mount namespace and as number 1 of a PID namespace of its own.

    Args:
        wish: `container` as in a `ChildRequest`; the working directory is the bundle's.
            Where `groups` is `read-only` or `hidden`, the runtime makes no control groups.
        stage: what is being done, for a report of failure.
        told: where that goes; closed when the program runs.

    Raises OSError, ContainerError.
    """
    if wish["overlay"]:
        stage[0] = "overlay"
        system.mount("overlay", "root", "overlay", 0, wish["overlay"])
    stage[0] = "container"
    if wish.get("groups") == "read-only":
        system.read_only(GROUPS)
    elif wish.get("groups") == "hidden":
        system.mount("tmpfs", GROUPS, "tmpfs", 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    how = [wish["runtime"], *wish.get("options", ())]
    general = [*how, "--root", STATE, "--log", LOG, "--log-format", "json"]
    preserved = ["--preserve-fds", str(wish["descriptors"])] if wish["descriptors"] else []
    one = ["run", "--detach", "--bundle", ".", "--pid-file", PID, *preserved, wish["name"]]
    _runtime([*general, *one])
    with open(PID, "rb") as file:  # bytes: what belongs to an encoding may be out of reach in here
        program = int(file.read())
    init.keep_alone(program, told + 64)


def _runtime(argv: Sequence[str]) -> None:
    """Have the runtime do its work. Raises ContainerError, OSError."""
    until = time.monotonic() + DEADLINE
    pid = os.posix_spawn(argv[0], list(argv), {"PATH": os.defpath}, setsigmask=())  # copies no memory
    while True:
        heard = signal.sigtimedwait(signal.valid_signals(), max(0.0, until - time.monotonic()))
        if heard is None:
            raise TimeoutError(errno.ETIMEDOUT, f"{argv[0]} was not done within {DEADLINE:g} s")
        if heard.si_signo in init.ENDING:  # nothing runs yet that could hear it; the namespace ends with us
            os._exit(128 + heard.si_signo)
        ended, status = os.waitpid(pid, os.WNOHANG)  # and nobody else: the program may end already
        if ended:
            if status != 0:
                if os.WIFSIGNALED(status):
                    raise InterruptedError(errno.EINTR, f"{argv[0]} was killed")
                raise ContainerError(_words() or f"{argv[0]} ended with {status}")
            return


def _words() -> str:
    """The last error in the runtime's log, or ""."""
    try:
        with open(LOG, "rb") as file:
            lines = file.read(LOG_MAX).splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") == "error":
            return str(entry.get("msg", ""))[:WORDS_MAX]
    return ""
