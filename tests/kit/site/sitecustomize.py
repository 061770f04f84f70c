"""What Python imports before all else in keeper and agent when this directory is in PYTHONPATH.

AUDITED=DIRECTORY AUDIT=FILE: tells in the file of everything that changes what is below the directory, if
an event loop's thread does it. A disk that hangs would stop that loop. One line a call: the event, the path,
and who called.

HASTE=1: the agent asks often whether its disk answers, and has little patience with it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from typing import Any

CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.setxattr",
    "os.symlink", "os.truncate", "os.utime",
}  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
TARGETS = {"os.link", "os.rename", "os.symlink"}  # the second argument says where


def _changed(event: str, arguments: tuple[Any, ...]) -> Any:
    """What a call changes, None for nothing."""
    if event == "open":
        path, _, flags = arguments
        return path if isinstance(flags, int) and flags & WRITES else None
    if event in CHANGES:
        return arguments[1 if event in TARGETS else 0]
    return None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    path = _changed(event, arguments)
    if path is None or asyncio._get_running_loop() is None:
        return
    if isinstance(path, int):
        path = os.readlink(f"/proc/self/fd/{path}")
    path = os.fsdecode(path)
    if path.startswith("/") and not path.startswith(os.environ["AUDITED"]):
        return
    who = [
        f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_stack()
        if f"{os.sep}agent{os.sep}" in frame.filename
    ]
    told = os.open(os.environ["AUDIT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(told, f"{event} {path} by {' < '.join(who[:-6:-1])}\n".encode())
    os.close(told)


if "AUDITED" in os.environ:
    sys.addaudithook(_hear)

if "HASTE" in os.environ and "_agent" in sys.orig_argv:
    from agent.deploy import disk_watch, journal_file

    disk_watch.SOON, disk_watch.REST, disk_watch.PATIENCE = 0.2, 0.5, 1.0
    journal_file.PATIENCE = 1.0
