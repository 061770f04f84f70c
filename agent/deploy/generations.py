"""Config generations: the rendered files of an app, whole or absent, named by their digest.

Nobody but the agent has anything to change there; who can, may do so nevertheless. So a generation can be
compared with what was written, and put right again, file by file, each by one rename.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from agent.domain.spec import AppSpec, ManagedFile
from agent.kit.files import remove_tree, sync_directory

Owner = tuple[int, int]
Seen = dict[Path, tuple[int, ...]]  # what stat(2) told of a file when it was right
TEMPORARY = ".emptybox.tmp"
SETTLED = 2_000_000_000  # nanoseconds; a file changed later than that may change again with the same time


def write_generation(generations: Path, spec: AppSpec, owner: Owner | None) -> Path | None:
    """Write the generation of `spec` (or find it written); None when the app has no files.

    Args:
        generations: directory of the app's generations.
        spec: the app.
        owner: uid and gid that may read the files, None for the agent's own.

    Raises OSError. Every file is fsynced before the directory is renamed into place.
    """
    if not spec.files:
        return None
    path = generations / spec.files_digest
    if path.is_dir():
        repair_generation(path, spec.files, owner)
        return path
    beside = generations / f".{spec.files_digest}.tmp"
    remove_tree(beside)
    beside.mkdir(mode=0o755)
    directories = {beside}
    for file in spec.files:
        directories.update(_write(beside, file, owner))
    for directory in directories:
        sync_directory(directory)
    os.rename(beside, path)
    sync_directory(generations)
    return path


def drifted(
    generation: Path, files: Sequence[ManagedFile], owner: Owner | None, seen: Seen | None = None
) -> list[str]:
    """What is not as it was written: targets of files, and what should not be there at all. Blocks.

    `seen` remembers from look to look which files were right, so that one that nobody touched is not
    read again. Raises OSError only for what cannot be read at all.
    """
    remembered = {} if seen is None else seen
    changed = [
        file.target
        for file in files
        if _through_link(generation, file.target)
        or not _is_right(generation / file.target, file, owner, remembered)
    ]
    return changed + _strangers(generation, files)


def repair_generation(generation: Path, files: Sequence[ManagedFile], owner: Owner | None) -> list[str]:
    """Put right what is not as it was written; returns what that was. Blocks. Raises OSError."""
    wrong = drifted(generation, files, owner)
    if not wrong:
        return []
    generation.mkdir(mode=0o755, exist_ok=True)
    by_target = {file.target: file for file in files}
    for target in wrong:
        file = by_target.get(target)
        if file is None:
            remove_tree(generation / target)
            continue
        for directory in [*reversed((generation / target).relative_to(generation).parents)][1:]:
            here = generation / directory
            if here.is_symlink() or not here.is_dir():
                remove_tree(here)
                here.mkdir(mode=0o755)
        _replace(generation / target, file, owner)
    return wrong


def _through_link(generation: Path, target: str) -> bool:
    parents = Path(target).parents[:-1]
    return any((generation / parent).is_symlink() for parent in parents)


def _is_right(path: Path, file: ManagedFile, owner: Owner | None, seen: Seen) -> bool:
    try:
        if seen.get(path) == stat_key(os.lstat(path)):
            return True
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as found:
            info = os.fstat(found.fileno())
            right = (
                stat.S_ISREG(info.st_mode)
                and stat.S_IMODE(info.st_mode) == file.mode
                and (owner is None or (info.st_uid, info.st_gid) == owner)
                and info.st_size == len(file.content)
                and found.read(len(file.content) + 1) == file.content
            )
    except OSError:
        return False
    if right and time.time_ns() - info.st_ctime_ns > SETTLED:
        seen[path] = stat_key(info)
    return right


def stat_key(info: os.stat_result) -> tuple[int, ...]:
    """What changes whenever a file does, if not within one tick of the clock."""
    times = (info.st_mtime_ns, info.st_ctime_ns)
    return (info.st_dev, info.st_ino, info.st_mode, info.st_uid, info.st_gid, info.st_size, *times)


def _strangers(generation: Path, files: Sequence[ManagedFile]) -> list[str]:
    """Names in the generation that are neither a file of it nor a directory on the way to one."""
    wanted = {Path(file.target) for file in files}
    parents = {parent for target in wanted for parent in target.parents}
    found = []
    for directory in parents:
        try:
            names = os.listdir(generation / directory)
        except OSError:
            continue
        found += [str(directory / name) for name in names if directory / name not in wanted | parents]
    return sorted(found)


def _replace(target: Path, file: ManagedFile, owner: Owner | None) -> None:
    if target.is_dir() and not target.is_symlink():
        remove_tree(target)
    beside = target.with_name(f".{target.name[:200]}{TEMPORARY}")
    remove_tree(beside)
    _write_file(beside, file, owner)
    os.rename(beside, target)
    sync_directory(target.parent)


def _write(root: Path, file: ManagedFile, owner: Owner | None) -> list[Path]:
    target = root / file.target
    made = [p for p in target.parents if p != root and root in p.parents]
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_file(target, file, owner)
    return made


def _write_file(path: Path, file: ManagedFile, owner: Owner | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, file.mode), "wb") as out:
        os.fchmod(out.fileno(), file.mode)
        if owner is not None:
            os.fchown(out.fileno(), *owner)
        out.write(file.content)
        out.flush()
        os.fsync(out.fileno())
