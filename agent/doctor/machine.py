"""The machine as the agent's user meets it: directories, space, memory, clock, secret files. It blocks."""

from __future__ import annotations

import ctypes
import os
import pwd
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from agent.config import Settings
from agent.doctor.findings import Finding, Verdict
from agent.process.memory import available

LOW_SPACE, NO_SPACE = 512 << 20, 64 << 20  # bytes
LOW_INODES, NO_INODES = 20_000, 1_000
LOW_MEMORY = 128 << 20
TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronised
BUILT = 1_760_000_000.0  # seconds since the epoch: no clock is right that shows an earlier time


def machine(settings: Settings) -> Iterator[Finding]:
    """All findings about the machine."""
    yield _user(settings)
    yield _data(settings.data)
    yield from _space(settings.data)
    yield _memory()
    yield _clock()
    for name, path in (
        ("webhook secret", settings.webhook_secret_file),
        ("credentials", settings.credentials_file),
        ("control token", settings.control_token_file),
        ("status token", settings.status_token_file),
        ("ssh passphrase", settings.ssh_passphrase_file),
    ):
        if path is not None:
            yield _secret(name, path)
    for root in settings.file_roots:
        if not os.access(root, os.R_OK | os.X_OK):
            yield Finding("file root", Verdict.BAD, f"{root} cannot be read", "correct --file-root")
    for root in settings.place_roots:
        if not os.access(root, os.W_OK | os.X_OK):
            told = f"{root} is not there, or this user may not write to it"
            yield Finding("place root", Verdict.BAD, told, "make it, or correct --place-root")


def _user(settings: Settings) -> Finding:
    uid = os.geteuid()
    told = f"uid {uid}" + (" (root)" if uid == 0 else "")
    missing = [name for name in settings.users if not _known(name)]
    if missing:
        return Finding("user", Verdict.BAD, f"{told}; no such user: {', '.join(missing)}", "add them here")
    if settings.users and uid != 0:
        return Finding("user", Verdict.BAD, f"{told} cannot become {settings.users[0]}", "run it as root")
    return Finding("user", Verdict.OK, told)


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _there(path: Path) -> Path:
    """The path, or what of it is there."""
    return next(place for place in (path, *path.parents) if place.exists() or place == place.parent)


def _data(data: Path) -> Finding:
    place = _there(data)
    if not os.access(place, os.W_OK | os.X_OK):
        remedy = "make it writable for the agent's user, or name another with --data"
        return Finding("data directory", Verdict.BAD, f"{place} cannot be written", remedy)
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        remedy = "mount it without noexec, or name another with --data"
        return Finding("data directory", Verdict.BAD, f"programs on {place} may not be run (noexec)", remedy)
    told = f"{data} can be written" if place == data else f"{data} is not there yet, and can be made"
    return Finding("data directory", Verdict.OK, told)


def _space(data: Path) -> Iterator[Finding]:
    place = _there(data)
    held = os.statvfs(place)
    free = held.f_bavail * held.f_frsize
    remedy = f"free space on the file system of {place}"
    told = f"{free / (1 << 30):.1f} GiB free"
    yield Finding("disk", _graded(free, LOW_SPACE, NO_SPACE), told, remedy if free < LOW_SPACE else "")
    if held.f_files:
        left = held.f_favail
        remedy = f"remove files on the file system of {place}"
        verdict = _graded(left, LOW_INODES, NO_INODES)
        yield Finding("inodes", verdict, f"{left} free", remedy if left < LOW_INODES else "")


def _graded(value: float, low: float, none: float) -> Verdict:
    return Verdict.BAD if value < none else Verdict.WARN if value < low else Verdict.OK


def _memory() -> Finding:
    left = available()
    told = f"{left / (1 << 20):.0f} MiB available"
    if left < LOW_MEMORY:
        return Finding("memory", Verdict.WARN, told, "two versions may not fit side by side: swaps restart")
    return Finding("memory", Verdict.OK, told)


def _clock() -> Finding:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if time.time() < BUILT:
        return Finding("clock", Verdict.BAD, f"{now} cannot be right", "set the clock: certificates need it")
    timex = (ctypes.c_char * 512)()  # struct timex, all zero: only asks
    if ctypes.CDLL(None).adjtimex(timex) == TIME_ERROR:
        return Finding("clock", Verdict.WARN, f"{now}, not known to be synchronised", "see timedatectl(1)")
    return Finding("clock", Verdict.OK, f"{now}, synchronised")


def _secret(name: str, path: Path) -> Finding:
    try:
        with path.open("rb") as file:
            empty, mode = not file.read(1), os.fstat(file.fileno()).st_mode
    except OSError as error:
        remedy = "let the agent's user read it"
        return Finding(name, Verdict.BAD, f"{path} cannot be read: {error.strerror}", remedy)
    if empty:
        return Finding(name, Verdict.BAD, f"{path} is empty", "write the secret into it")
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        return Finding(name, Verdict.WARN, f"{path} may be read by everybody", f"chmod 600 {path}")
    return Finding(name, Verdict.OK, f"{path} can be read")
