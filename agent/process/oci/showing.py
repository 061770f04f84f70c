"""Other rendered files for a container that runs: written through the mount that its root is.

What lies below an overlayfs must not change while it is mounted, and what is mounted is seen in the
container's mount namespace alone: it is entered by /proc/PID/root of its init. Everything from the root on
belongs to the program, which may have made links of any part of it: nothing is followed there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.process.oci import bundle
from agent.process.oci.container import place_of

TEMPORARY = ".emptybox.tmp"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def show(instance: Path, child: str, pid: int, generation: Path) -> None:
    """Put the files of a generation in the place of those that a container has.

    Args:
        instance: the child's directory.
        child: its name.
        pid: the keeper's child: the init of the container.
        generation: a directory with the files.

    Blocks. Raises OSError, also where a part of a path has become a link.
    """
    top = Path(f"/proc/{pid}/root") / (place_of(instance, child) / bundle.ROOT).relative_to("/")
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _copy(generation, root)
    finally:
        os.close(root)


def _copy(source: Path, target: int) -> None:
    """All of a directory into another, that is open."""
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        info = entry.stat(follow_symlinks=False)
        if not entry.is_dir(follow_symlinks=False):
            _put(source / entry.name, info, entry.name, target)
            continue
        try:
            os.mkdir(entry.name, stat.S_IMODE(info.st_mode), dir_fd=target)
        except FileExistsError:
            pass
        inner = os.open(entry.name, _DIRECTORY, dir_fd=target)
        try:
            _copy(source / entry.name, inner)
        finally:
            os.close(inner)


def _put(file: Path, info: os.stat_result, name: str, target: int) -> None:
    beside = f".{name[:200]}{TEMPORARY}"
    try:
        os.unlink(beside, dir_fd=target)
    except FileNotFoundError:
        pass
    with os.fdopen(os.open(beside, _NEW, 0o600, dir_fd=target), "wb") as out:
        out.write(file.read_bytes())
        os.fchmod(out.fileno(), stat.S_IMODE(info.st_mode))
        if (info.st_uid, info.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(out.fileno(), info.st_uid, info.st_gid)
    os.rename(beside, name, src_dir_fd=target, dst_dir_fd=target)
