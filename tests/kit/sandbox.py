"""Narrower lives for the keeper: other users, fewer capabilities, system calls refused as by a container.

As a program: `sandbox.py RULE... -- command`, where a rule `number=errno` refuses a system call, and
`number=errno@argument&mask` refuses it when one of those bits is set in that argument. It becomes the
command.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agent.keeper.adopt.trap import CALLS, RET_ALLOW

NOBODY = 65534
# What Docker leaves to root in a container (moby, oci/caps/defaults.go).
DOCKER_CAPABILITIES = (
    "chown,dac_override,fsetid,fowner,mknod,net_raw,setgid,setuid,setfcap,setpcap,net_bind_service,sys_chroot,"
    "kill,audit_write"
)
# What Docker's default profile refuses without the capability for it (moby, profiles/seccomp).
DOCKER_REFUSES = {
    "x86_64": {"pidfd_getfd": 438, "kcmp": 312, "bpf": 321, "setns": 308, "perf_event_open": 298},
    "aarch64": {"pidfd_getfd": 438, "kcmp": 272, "bpf": 280, "setns": 268, "perf_event_open": 241},
}
_REFUSE = 0x00050000  # SECCOMP_RET_ERRNO
_INSTRUCTION = struct.Struct("=HBBI")


def as_root() -> None:
    """The test changes who it is: where that is not possible it is skipped, but in CI it fails."""
    if os.geteuid() != 0:
        (pytest.fail if "CI" in os.environ else pytest.skip)("needs the rights of root")
    tool("setpriv")


def tool(*names: str) -> str:
    """The first of these programs that is installed; without any the test is skipped, but in CI it fails."""
    found = (shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") for name in names)
    path = next(filter(None, found), None)
    if path is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"{names[0]} is not installed")
    return path


def compiled(source: str, target: Path, *flags: str) -> Path:
    """A C program, compiled."""
    text = target.with_suffix(".c")
    text.write_text(source)
    subprocess.run([tool("gcc", "cc"), *flags, "-o", target, text], check=True)
    return target


def seccomp_number() -> int:
    """The number of seccomp(2) here."""
    return CALLS[os.uname().machine][1]


def refusing(*rules: str) -> list[str]:
    """Start a command with system calls refused; see the module for the rules."""
    return [sys.executable, "-P", str(Path(__file__).resolve()), *rules, "--"]


def unprivileged() -> list[str]:
    """Start a command as nobody, without capabilities.

    Where others may not enter the directory of the interpreter or of these sources (/root), one is left:
    to read anything. It has no say in whether a process may look at another.
    """
    as_root()
    places = [Path(sys.executable).resolve(), Path(sys.prefix).resolve(), Path(__file__).resolve()]
    open_to_all = all(parent.stat().st_mode & 0o1 for place in places for parent in place.parents)
    kept = [] if open_to_all else ["dac_read_search"]
    sets = ",".join(["-all", *(f"+{name}" for name in kept)])
    return [
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", f"--inh-caps={sets}",
        f"--ambient-caps={sets}", f"--bounding-set={sets}", "--no-new-privs",
    ]  # fmt: skip


def in_docker(*, root: bool) -> list[str]:
    """Start a command as in a container of Docker's with its default profile, as root or as nobody."""
    as_root()
    refused = (f"{n}={errno.EPERM}" for n in DOCKER_REFUSES[os.uname().machine].values())
    sets = ",".join(["-all", *(f"+{name}" for name in DOCKER_CAPABILITIES.split(","))])
    return [*refusing(*refused), *(["setpriv", f"--bounding-set={sets}"] if root else unprivileged())]


def program(rules: list[str]) -> bytes:
    """The filter that refuses by these rules."""
    steps: list[tuple[int, int, int, int]] = []
    for rule in rules:
        number, _, rest = rule.partition("=")
        code, _, condition = rest.partition("@")
        refusal = (0x06, 0, 0, _REFUSE | int(code))
        if condition:
            argument, _, mask = condition.partition("&")
            place = 16 + 8 * int(argument)  # struct seccomp_data: the low half of an argument
            steps += [(0x20, 0, 0, 0), (0x15, 0, 3, int(number))]
            steps += [(0x20, 0, 0, place), (0x45, 0, 1, int(mask)), refusal]
        else:
            steps += [(0x20, 0, 0, 0), (0x15, 0, 1, int(number)), refusal]
    return b"".join(_INSTRUCTION.pack(*step) for step in [*steps, (0x06, 0, 0, RET_ALLOW)])


def main(arguments: list[str]) -> None:
    """Refuse, and become the command."""
    at = arguments.index("--")
    code = program(arguments[:at])
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        libc.prctl(38, 1, 0, 0, 0)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("HP", len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
    if libc.syscall(seccomp_number(), 1, 0, fprog) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execvp(arguments[at + 1], arguments[at + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
