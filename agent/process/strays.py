"""Strays: processes of an earlier life of this box that nobody keeps any more.

A child dies with its keeper (PR_SET_PDEATHSIG), what it started itself does not. Every program of an app
has EMPTYBOX_BOX in its environment, and passes it on; so after a cold start, when the keeper has no
children, whoever carries this box's name is a stray. One that wrote over its own environment (some
servers do so to change their title) is not found.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Collection
from dataclasses import dataclass

log = logging.getLogger(__name__)

GRACE = 5.0  # seconds between TERM and KILL
KILLED = 5.0  # seconds a killed process is waited for
ENVIRONMENT_MAX = 1 << 20  # bytes read of one environment


def strays(box: str, keep_pids: Collection[int]) -> list[int]:
    """Pids of processes that carry the name `box`, `keep_pids` and this process left out. Blocks."""
    wanted = b"EMPTYBOX_BOX=" + os.fsencode(box)
    own = {*keep_pids, os.getpid()}
    names = (name for name in os.listdir("/proc") if name.isdigit())
    return sorted(pid for pid in map(int, names) if pid not in own and _carries(pid, wanted))


def _carries(pid: int, wanted: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return wanted in file.read(ENVIRONMENT_MAX).split(b"\0")
    except OSError:  # gone, or somebody else's
        return False


async def end_strays(box: str, keep_pids: Collection[int], grace: float = GRACE) -> list[int]:
    """TERM, `grace` seconds, KILL for every stray; returns their pids once they are gone.

    Runs in rounds, because a stray may start another one while it ends.
    """
    ended: set[int] = set()
    for _ in range(3):
        found = await asyncio.to_thread(strays, box, keep_pids)
        if not found:
            break
        ended.update(found)
        log.warning("ending processes of an earlier life of this box: %s", ", ".join(map(str, found)))
        await asyncio.gather(*(_end(pid, box, grace) for pid in found))
    return sorted(ended)


async def _end(pid: int, box: str, grace: float) -> None:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # The pid may be another process by now; the handle cannot change hands any more.
        if not _carries(pid, b"EMPTYBOX_BOX=" + os.fsencode(box)):
            return
        for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, KILLED)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if await _gone(handle, wait):
                return
        log.error("process %d of an earlier life does not end", pid)
    except PermissionError:
        log.error("process %d of an earlier life may not be ended by this user", pid)
    finally:
        os.close(handle)


async def _gone(handle: int, wait: float) -> bool:
    """Whether a process ends within `wait` seconds: its pidfd becomes readable (pidfd_open(2))."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        async with asyncio.timeout(wait):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(handle)
    return True


@dataclass(frozen=True, slots=True)
class Orphan:
    """A process of an app that became the keeper's when its parent ended; `child`: whose it was, or ""."""

    pid: int
    app: str
    child: str
    name: str


def orphans(box: str, keeper: int, known: Collection[int]) -> list[Orphan]:
    """Children of the keeper that it did not start itself, those `known` left out. Blocks for small files."""
    try:
        with open(f"/proc/{keeper}/task/{keeper}/children", encoding="ascii") as file:
            pids = [int(word) for word in file.read().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return []
    found = []
    for pid in pids:
        environment = _environment(pid) if pid not in known else {}
        if environment.get("EMPTYBOX_BOX") == box and (app := environment.get("EMPTYBOX_APP")):
            found.append(Orphan(pid, app, environment.get("EMPTYBOX_CHILD", ""), _name(pid)))
    return found


async def end_orphan(orphan: Orphan, box: str, grace: float = GRACE) -> None:
    """TERM, `grace` seconds, KILL, if it is still that process."""
    await _end(orphan.pid, box, grace)


def _environment(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            parts = file.read(ENVIRONMENT_MAX).split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(part).partition("=") for part in parts if part.startswith(b"EMPTYBOX_"))
    return {name: value for name, _, value in pairs}


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return "?"
