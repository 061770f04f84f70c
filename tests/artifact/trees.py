"""What a directory holds, comparable; and unpacking without a download."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.artifact.archive.unpack import Form, Unpacker
from agent.artifact.limits import DEFAULTS, Limits

Entry = tuple[object, ...]


def snapshot(root: Path, *, times: bool = True) -> dict[bytes, Entry]:
    """Every path below `root` with its kind, permissions, content, link target and modification time.

    Names of one file (hard links) show the same group. Times of directories are left out.
    """
    found: dict[bytes, Entry] = {}
    groups: dict[int, bytes] = {}
    base = os.fsencode(root)
    for directory, names, files in os.walk(base):
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            key = os.path.relpath(path, base)
            mode = stat.S_IMODE(info.st_mode)
            if stat.S_ISLNK(info.st_mode):
                found[key] = ("link", os.readlink(path))
            elif stat.S_ISDIR(info.st_mode):
                found[key] = ("directory", oct(mode))
            else:
                group = groups.setdefault(info.st_ino, key) if info.st_nlink > 1 else b""
                content = Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(info.st_mode) else b"?"
                found[key] = ("file", oct(mode), content, info.st_mtime_ns if times else 0, group)
    return found


def unpack(
    data: bytes,
    root: Path,
    *,
    form: Form = Form.AUTO,
    target: str = "bin/web",
    strip: int = 0,
    limits: Limits = DEFAULTS,
    step: int = 1 << 16,
) -> None:
    """Unpack into the new directory `root`, fed `step` bytes at a time. Raises what the Unpacker raises."""
    root.mkdir()
    unpacker = Unpacker(root, form, target, strip, limits)
    try:
        for start in range(0, len(data), step):
            unpacker.feed(data[start : start + step])
        unpacker.finish()
    finally:
        unpacker.close()
