"""A release of which something was changed on this host is put right from a fresh copy of it.

File by file, each by one rename, and only those that are wrong: a program that runs in the release keeps
what it has open, and finds everything else where it was. Killed in the middle, the rest is still found
to be wrong the next time.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

from agent.artifact import inventory
from agent.artifact.inspection import Findings, inspect
from agent.artifact.inventory import DIRECTORY, FILE
from agent.artifact.pipeline import Stopped
from agent.artifact.store import Store
from agent.kit.files import remove_tree, sync_filesystem


def looked(store: Store, release: str, thorough: bool, stop: Event) -> Findings:
    """A look at a release of the store; what it learns is written down. Blocks. Raises OSError, Stopped."""

    def check() -> None:
        if stop.is_set():
            raise Stopped

    written = store.inventory(release)
    found = inspect(store.path(release), written, thorough=thorough, check=check)
    if found.refreshed:
        inventory.write(written, found.entries)
    return found


def mend(store: Store, release: str, fresh: Path, found: Findings) -> None:
    """Replace what was `found` to be changed in a release by what `fresh`, the same release, has.

    `fresh` is of no use afterwards. Blocks. Raises OSError.
    """
    entries, wrong, made = found.entries, set(found.changed), list[bytes]()
    root, source = os.fsencode(store.path(release)), os.fsencode(fresh)
    os.makedirs(root, 0o755, exist_ok=True)
    for path, entry in entries.items():  # directories stand before what is in them
        if path not in wrong and not any(path.startswith(above) for above in made):
            continue
        target = os.path.join(root, path)
        if os.path.isdir(target) and not os.path.islink(target):
            if entry.kind == DIRECTORY:
                os.chmod(target, 0o755)  # noqa: S103 - as every directory of a release is
                continue
            remove_tree(os.fsdecode(target))
        if entry.kind == DIRECTORY:
            remove_tree(os.fsdecode(target))
            os.mkdir(target)
            os.chmod(target, 0o755)  # noqa: S103
            made.append(path + b"/")
            continue
        os.rename(os.path.join(source, path), target)
        if entry.kind == FILE:
            entries[path] = inventory.seen(os.lstat(target), entry.digest)
    sync_filesystem(store.path(release))
    inventory.write(store.inventory(release), entries)
