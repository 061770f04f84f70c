"""Changes on disk that are whole or absent: write beside, sync, rename.

Everything here blocks; on the event loop call it through `asyncio.to_thread` unless it is one
rename or one small read.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_ALL = ctypes.c_int64(0)
_SYNC_FILE_RANGE_WRITE = 2


def sync_directory(path: str | Path) -> None:
    """Fsync a directory, so that a rename in it survives a power cut. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: str | Path) -> None:
    """syncfs(2) of the file system that holds `path`: one call for a whole tree. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_filesystem_of(fd)
    finally:
        os.close(fd)


def sync_filesystem_of(fd: int) -> None:
    """The same for the file system of a descriptor. Raises OSError."""
    if _libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def begin_writing(fd: int) -> None:
    """Let the disk begin with what was written to a file so far, see sync_file_range(2).

    A sync that comes later then has less to wait for. It promises nothing by itself, and tells no errors.
    """
    _libc.sync_file_range(fd, _ALL, _ALL, _SYNC_FILE_RANGE_WRITE)


def write_atomically(path: str | Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file beside, fsync, rename over `path`, fsync the directory. Raises OSError."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def link_atomically(path: str | Path, target: str, *, sync: bool = True) -> None:
    """Make or replace the symbolic link `path` by one rename. Raises OSError.

    Args:
        path: the link.
        target: its text, relative to the link's directory.
        sync: fsync the directory afterwards.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.unlink(missing_ok=True)
    os.symlink(target, beside)
    os.rename(beside, path)
    if sync:
        sync_directory(path.parent)


def remove_tree(path: str | Path, breathe: Callable[[], None] = lambda: None) -> None:
    """Remove a directory tree of any depth without recursion and without following links.

    Directories without write permission are opened up first. A path that is not there is no error.
    `breathe` is called after every hundred files: to sleep (mass removal slows down a file system for
    everyone) or to give up, by raising.
    """
    path = os.fspath(path)
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(path)
        return
    pending: list[tuple[int, str, int, list[str]]] = []  # parent fd, name, own fd, directories left

    def enter(parent: int | None, name: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        if stat.S_IMODE(os.lstat(name, dir_fd=parent).st_mode) & 0o700 != 0o700:
            os.chmod(name, 0o700, dir_fd=parent)
        own = os.open(name, flags, dir_fd=parent)
        inner: list[str] = []
        pending.append((parent if parent is not None else -1, name, own, inner))
        with os.scandir(own) as entries:
            for count, entry in enumerate(entries, start=1):
                if entry.is_dir(follow_symlinks=False):
                    inner.append(entry.name)
                else:
                    os.unlink(entry.name, dir_fd=own)
                if count % 100 == 0:
                    breathe()

    try:
        enter(None, path)
        while pending:
            parent, name, own, inner = pending[-1]
            if inner:
                enter(own, inner.pop())
                continue
            pending.pop()
            os.close(own)
            os.rmdir(name, dir_fd=None if parent == -1 else parent)
    finally:
        for _, _, own, _ in pending:
            os.close(own)
