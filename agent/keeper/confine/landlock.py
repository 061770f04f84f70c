"""Landlock (landlock(7)): a program names what it will still need, and loses all the rest for good.

Any domain, also one without a word about files, keeps its processes from looking into those outside
(ptrace(2), /proc/PID/mem, environ, fd), from Linux 6.12 on also from signalling them.
"""

from __future__ import annotations

import functools
import os
import stat
import struct

from agent.keeper.confine.system import call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

CREATE, ADD, RESTRICT = 444, 445, 446  # the same on all machines
PATH, PORT = 1, 2  # kinds of rules
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE  # make sense for what is no directory
SINCE = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEVICE}  # version of the interface: rights
BIND, CONNECT = 1 << 0, 1 << 1
PORTS_SINCE = 4
SCOPES = {"abstract": 1 << 0, "signals": 1 << 1}
SCOPES_SINCE = 6
READ = EXECUTE | READ_FILE | READ_DIR
MISSING = (FileNotFoundError, NotADirectoryError, PermissionError)


@functools.cache
def version() -> int:
    """Of the kernel's interface; 0: it has none, or does not let us use it."""
    try:
        return call(CREATE, None, 0, 1)
    except OSError:
        return 0


def ruleset(wish: Mapping[str, Any]) -> int:
    """Make a ruleset; returns its descriptor. Raises OSError.

    `wish`: `scopes` (names of SCOPES), `read` and `write` (paths; those that are not there are left out,
    neither given: files are not restricted), `bind` and `connect` (ports; None: not restricted). What the
    kernel's version does not have is left out: `held` says what is there.
    """
    has = version()
    files = wish.get("read") is not None
    everything = sum(rights for since, rights in SINCE.items() if since <= has)
    scoped = sum(SCOPES[name] for name in wish["scopes"]) if has >= SCOPES_SINCE else 0
    handled = everything if files else 0 if scoped else REFER
    ports = {BIND: wish.get("bind"), CONNECT: wish.get("connect")} if has >= PORTS_SINCE else {}
    net = sum(right for right, allowed in ports.items() if allowed is not None)
    ours = call(CREATE, struct.pack("=QQQ", handled, net, scoped), 24, 0)
    if files:
        _allow(ours, wish["read"], READ & everything)
        _allow(ours, wish["write"], everything)
    elif handled:  # a domain needs something to handle; moving between directories is denied if not allowed
        _allow(ours, ["/"], handled)
    for right, allowed in ports.items():
        for port in allowed or ():
            call(ADD, ours, PORT, struct.pack("=QQ", right, port), 0)
    return ours


def _allow(ours: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except MISSING:
            continue
        try:
            directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            call(ADD, ours, PATH, struct.pack("=Qi", rights if directory else rights & OF_FILES, fd), 0)
        finally:
            os.close(fd)


def held(wish: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """What such a ruleset does here, as parts of a confinement, and what it cannot do, with the reason."""
    has = version()
    parts = {"ptrace": 1 if wish.get("read") is not None else 2}
    if wish.get("read") is not None:
        parts["files"] = 1
    for part, key in (("ports", "bind"), ("connect", "connect")):
        if wish.get(key) is not None:
            parts[part] = PORTS_SINCE
    parts.update(dict.fromkeys(wish["scopes"], SCOPES_SINCE))
    lacking = {
        part: f"Landlock here has version {has}, it takes {since}" if has else "there is no Landlock here"
        for part, since in parts.items()
        if has < since
    }
    return [part for part in parts if part not in lacking], lacking


def restrict(ours: int) -> None:
    """Put a ruleset in force for this thread and all it starts. Needs no_new_privs. Raises OSError."""
    call(RESTRICT, ours, 0)
