"""What the kernel, and the sandbox around this process, let us do. Everything here is tried, not guessed."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from agent.doctor.findings import Finding, Verdict

LANDLOCK_CREATE_RULESET = 444  # the same on every architecture but alpha
LANDLOCK_CREATE_RULESET_VERSION = 1
SOMAXCONN = 4096
FILES = 4096  # descriptors: a gate may hold thousands of clients
_SYSCTL = Path("/proc/sys")
_libc = ctypes.CDLL(None, use_errno=True)


def kernel() -> Iterator[Finding]:
    """All findings about the kernel."""
    name = os.uname()
    yield Finding("kernel", Verdict.OK, f"{name.sysname} {name.release} {name.machine}")
    yield _seccomp()
    yield _landlock()
    yield _cgroups()
    yield _tried("memfd", lambda: os.close(os.memfd_create("emptybox")), "memfd_create(2)")
    yield _tried("pidfd", _pidfd, "pidfd_open(2)")
    yield _tried("reuseport", _reuseport, "SO_REUSEPORT on a loopback socket")
    yield _somaxconn()
    yield _files()


def _tried(subject: str, attempt: object, what: str) -> Finding:
    try:
        assert callable(attempt)
        attempt()
    except (OSError, AttributeError) as error:
        return Finding(subject, Verdict.BAD, f"{what} does not work here: {error}", "use a newer kernel")
    return Finding(subject, Verdict.OK, f"{what} works")


def _pidfd() -> None:
    fd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)


def _reuseport() -> None:
    with socket.socket() as first, socket.socket() as second:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())


def _seccomp() -> Finding:
    remedy = "use socket: fd or socket: relay in the state; adopting unmodified programs needs it"
    try:
        actions = (_SYSCTL / "kernel/seccomp/actions_avail").read_text().split()
    except OSError as error:
        told = f"seccomp's actions cannot be read: {error.strerror}"
        return Finding("seccomp", Verdict.UNKNOWN, told, remedy)
    if "user_notif" in actions:
        return Finding("seccomp", Verdict.OK, "the kernel knows seccomp notifications (socket: adopt)")
    return Finding("seccomp", Verdict.WARN, "the kernel knows no seccomp notifications", remedy)


def _landlock() -> Finding:
    version = _libc.syscall(
        LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION
    )
    if version >= 1:
        return Finding("landlock", Verdict.OK, f"version {version}")
    why = os.strerror(ctypes.get_errno())
    return Finding("landlock", Verdict.WARN, f"not available: {why}", "apps are not confined by it here")


def _cgroups() -> Finding:
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError as error:
        return Finding("cgroups", Verdict.UNKNOWN, f"mounts cannot be read: {error.strerror}")
    at = {
        kind: point for _, point, kind, *_ in (line.split() for line in mounts) if kind.startswith("cgroup")
    }
    if "cgroup2" in at:
        try:
            controllers = Path(at["cgroup2"], "cgroup.controllers").read_text().split()
        except OSError:
            controllers = []
        told = f"version 2 at {at['cgroup2']}, controllers: {' '.join(controllers) or 'none'}"
        verdict = Verdict.OK if "memory" in controllers else Verdict.WARN
        return Finding("cgroups", verdict, told)
    if at:
        return Finding(
            "cgroups", Verdict.WARN, "version 1 only", "boot with systemd.unified_cgroup_hierarchy=1"
        )
    return Finding("cgroups", Verdict.WARN, "none are mounted here", "limits of memory cannot be seen")


def _somaxconn() -> Finding:
    try:
        most = int((_SYSCTL / "net/core/somaxconn").read_text())
    except (OSError, ValueError) as error:
        return Finding("somaxconn", Verdict.UNKNOWN, f"cannot be read: {error}")
    told = f"{most} clients can wait at a port"
    if most >= SOMAXCONN:
        return Finding("somaxconn", Verdict.OK, told)
    return Finding("somaxconn", Verdict.WARN, told, f"sysctl -w net.core.somaxconn={SOMAXCONN}")


def _files() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= FILES:
        return Finding("descriptors", Verdict.OK, f"up to {hard if hard >= 0 else 'any number'}")
    return Finding("descriptors", Verdict.WARN, f"only {hard} may be open", f"ulimit -Hn {FILES}")
