"""Config generations: the rendered files of an app, whole or absent, named by their digest."""

from __future__ import annotations

import os
from pathlib import Path

from agent.domain.spec import AppSpec, ManagedFile
from agent.kit.files import remove_tree, sync_directory

Owner = tuple[int, int]


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


def _write(root: Path, file: ManagedFile, owner: Owner | None) -> list[Path]:
    target = root / file.target
    made = [p for p in target.parents if p != root and root in p.parents]
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, file.mode), "wb") as out:
        os.fchmod(out.fileno(), file.mode)
        if owner is not None:
            os.fchown(out.fileno(), *owner)
        out.write(file.content)
        out.flush()
        os.fsync(out.fileno())
    return made
