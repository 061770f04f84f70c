"""The instance directory: what a child has as its working directory.

It holds two links, `.release` and `.config`, and a view over both: one link for each top-level name,
going through those two links. Where both have a directory of the same name, a real directory with the
links of both stands in; on a clash of files the generation wins. So a reload renames `.config` and the
running child sees the new files under the old names. The app's own directories (state, cache, logs) are
linked in by the names the spec gives them.

Nothing here needs to survive a power cut: an instance is built anew for each start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from agent.kit.files import link_atomically, remove_tree

_HALF = re.compile(r"\..+\.[0-9]+\.tmp")  # as `link_atomically` names them
RELEASE, CONFIG, TMP, CONTAINERS = ".release", ".config", ".tmp", ".oci"


def build_instance(path: Path, release: Path | None, config: Path | None, dirs: Mapping[str, Path]) -> None:
    """Make the instance directory at `path`.

    Args:
        path: the directory; what is there is removed.
        release: the release's tree or None.
        config: the generation's directory or None.
        dirs: relative name in the instance -> directory that outlives releases.

    Raises OSError.
    """
    remove_tree(path)
    path.mkdir(parents=True, mode=0o755)
    if release is not None:
        os.symlink(os.path.relpath(release, path), path / RELEASE)
    if config is not None:
        os.symlink(os.path.relpath(config, path), path / CONFIG)
    _merge(path, PurePosixPath(), release, config)
    for name, target in dirs.items():
        place = path / name
        _make_room(path, PurePosixPath(name), release, config)
        os.symlink(os.path.relpath(target, place.parent), place)


def is_instance(path: Path, release: Path | None, config: Path | None) -> bool:
    """Whether `path` is a whole instance directory of this release and generation."""
    for name, target in ((RELEASE, release), (CONFIG, config)):
        if target is None:
            continue
        link = path / name
        if not link.is_symlink() or os.readlink(link) != os.path.relpath(target, path):
            return False
        if not set(os.listdir(target)) <= set(os.listdir(path)):
            return False
    return True


def point_config(path: Path, config: Path) -> None:
    """Let a running child see another generation: new names are linked first, then `.config` is renamed."""
    release = (path / RELEASE).resolve() if (path / RELEASE).is_symlink() else None
    _merge(path, PurePosixPath(), release, config)
    link_atomically(path / CONFIG, os.path.relpath(config, path), sync=False)


def tidy_instance(path: Path) -> None:
    """Remove the links that an agent was about to put in their places when it was killed. Raises OSError."""
    pending = [PurePosixPath()]
    for inner in pending:
        for entry in os.scandir(path / inner):
            if entry.is_symlink() and _HALF.fullmatch(entry.name):
                os.unlink(entry.path)
            elif entry.is_dir(follow_symlinks=False) and _merged(path, inner / entry.name):
                pending.append(inner / entry.name)


def _merged(path: Path, inner: PurePosixPath) -> bool:
    return all((path / source / inner).is_dir() for source in (RELEASE, CONFIG))


def _merge(root: Path, inner: PurePosixPath, release: Path | None, config: Path | None) -> None:
    """Fill the real directory root/inner with links into release and config."""
    here = root / inner
    up = "../" * len(inner.parts)
    names: dict[str, str] = {}
    for top, source in ((RELEASE, release), (CONFIG, config)):
        if source is None or not (source / inner).is_dir():
            continue
        for name in os.listdir(source / inner):
            both = names.get(name)
            if both is not None and _are_directories(release, config, inner / name):
                names[name] = ""
            else:
                names[name] = top
    for name, top in names.items():
        place = here / name
        if top:
            text = f"{up}{top}/{inner / name}"
            if place.is_symlink() and os.readlink(place) == text:
                continue
            if place.is_symlink() or not place.exists():
                link_atomically(place, text, sync=False)
        else:
            if place.is_symlink():
                place.unlink()
            place.mkdir(exist_ok=True)
            _merge(root, inner / name, release, config)


def _are_directories(release: Path | None, config: Path | None, inner: PurePosixPath) -> bool:
    if release is None or config is None:
        return False
    both = (release / inner, config / inner)
    return all(path.is_dir() and not path.is_symlink() for path in both)


def _make_room(root: Path, name: PurePosixPath, release: Path | None, config: Path | None) -> None:
    """Make root/name free for a link: linked parents become real directories with the same content."""
    for inner in reversed(name.parents[:-1]):
        parent = root / inner
        if parent.is_symlink():
            parent.unlink()
        if not parent.is_dir():
            parent.mkdir()
            _merge(root, inner, release, config)
    place = root / name
    if place.is_symlink():
        place.unlink()
    else:
        remove_tree(place)
