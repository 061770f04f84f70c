"""Files that releases have in common are kept once: hard links, made before a new release is written to disk.

It is safe where nobody can write into a release through one of a file's names and so change the others:
the agent is root, and the app runs as another user (`Artifacts.deliver` is told). Where the app is the
agent's own user, each release has files of its own. Only what an app could not tell apart is shared: the
same content, mode, owner and modification time, and only from a release whose file nobody touched.

A second release of one app so costs the disk what changed; what did not is dropped before it is written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.artifact import inventory
from agent.artifact.inspection import untouched
from agent.artifact.inventory import FILE, Entry

_SMALLEST = 4096  # bytes; a smaller file is written faster than it is looked for
_ENOUGH = 4  # earlier releases that are looked through, newest first


def share(
    tree: Path, written: Path, earlier: Iterable[tuple[Path, Path]], check: Callable[[], None] = lambda: None
) -> int:
    """Let a new tree have what earlier ones have; returns how many bytes that saved. Blocks. Raises OSError.

    Args:
        tree: the new tree, which nobody uses yet; `written` its inventory, which is kept right.
        earlier: trees and inventories to look through.
        check: called between two files; what it raises ends the work.
    """
    entries = inventory.read(written)
    if entries is None:
        return 0
    wanted = {_key(entry): path for path, entry in entries.items() if _is_worth_it(entry)}
    saved, root = 0, os.fsencode(tree)
    for number, (other, described) in enumerate(earlier):
        if number == _ENOUGH or not wanted:
            break
        for path, entry in (inventory.read(described) or {}).items():
            mine = wanted.get(_key(entry)) if _is_worth_it(entry) else None
            if mine is None:
                continue
            check()
            info = _linked(os.path.join(os.fsencode(other), path), os.path.join(root, mine), entry)
            if info is not None:
                del wanted[_key(entry)]
                entries[mine] = inventory.seen(info, entry.digest)
                saved += entry.size
    if saved:
        inventory.write(written, entries, sync=False)
    return saved


def _is_worth_it(entry: Entry) -> bool:
    return entry.kind == FILE and entry.size >= _SMALLEST


def _key(entry: Entry) -> tuple[str, int, int]:
    return entry.digest, entry.mode, entry.mtime


def _linked(source: bytes, target: bytes, entry: Entry) -> os.stat_result | None:
    """Put one more name of `source` in the place of `target`, unless it is not what it was."""
    beside = target + b".emptybox.tmp"
    try:
        if not untouched(os.lstat(source), entry):
            return None
        os.link(source, beside, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EMLINK, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST):
            return None
        raise
    os.rename(beside, target)
    return os.lstat(target)
