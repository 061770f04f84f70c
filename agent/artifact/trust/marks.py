"""What is remembered of who signed what: `signed/ALGORITHM-HEX`, a line `ID<tab>NAME` for each key.

A mark says that this key signed the bytes (or the manifest) of this digest. That stays true whatever is
trusted later, so that keys may come and go without fetching anything again; whether a key counts is asked
each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.domain.artifact_spec import Checksum
from agent.kit.files import write_atomically
from agent.kit.signatures.keys import Mark

_MOST = 64  # keys that are remembered of one artifact


class Marks:
    """The marks below a directory. Blocks: small files."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def of(self, checksum: Checksum) -> tuple[Mark, ...]:
        """The marks of what has this digest."""
        try:
            lines = self._path(checksum).read_text().splitlines()
        except (OSError, ValueError):
            return ()
        pairs = (line.partition("\t") for line in lines)
        return tuple(Mark(id, name) for id, tab, name in pairs if tab)

    def add(self, checksum: Checksum, marks: Iterable[Mark]) -> None:
        """Remember who signed what has this digest. Raises OSError."""
        known = {mark.id: mark for mark in (*self.of(checksum), *marks)}
        lines = [f"{mark.id}\t{mark.name}\n" for mark in list(known.values())[-_MOST:]]
        write_atomically(self._path(checksum), "".join(lines).encode(), 0o600)

    def forget(self, wanted: Callable[[str], bool]) -> None:
        """Remove the marks of digests (hex) that nobody wants. Raises OSError."""
        for path in self._root.iterdir():
            if not wanted(path.name.partition("-")[2]):
                os.unlink(path)

    def _path(self, checksum: Checksum) -> Path:
        return self._root / f"{checksum.algorithm}-{checksum.hex.lower()}"
