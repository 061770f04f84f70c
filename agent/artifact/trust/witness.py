"""Sees the bytes of an artifact pass by, and judges its signatures when all of them have."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from agent.artifact.archive.tree import write_all
from agent.artifact.trust.case import Case


class Witness:
    """Fed with all bytes in order, in a thread.

    Args:
        copy: a path nobody has; where the bytes are kept if the case needs them whole.
    """

    def __init__(self, case: Case, copy: Path) -> None:
        self._case = case
        # The artifact's own digest is computed anyway, and handed to `judge`.
        others = case.hashes - {case.checksum.algorithm}
        self._hashes = {name: hashlib.new(name) for name in others}
        self._copy = copy if case.whole else None
        self._fd = -1

    def feed(self, piece: bytes) -> None:
        """More bytes. Raises OSError."""
        for one in self._hashes.values():
            one.update(piece)
        if self._copy is not None:
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._fd = os.open(self._copy, flags, 0o600)
            write_all(self._fd, piece)

    def judge(self, digest: bytes) -> None:
        """These were all bytes, of this digest, which is right. Raises Permanent, OSError."""
        if self._copy is not None and self._fd < 0:
            self._copy.touch(0o600)
        digests = {name: one.digest() for name, one in self._hashes.items()}
        self._case.judge({**digests, self._case.checksum.algorithm: digest}, self._copy)
        self.discard()

    def discard(self) -> None:
        """Remove the copy. Raises OSError."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._copy is not None:
            self._copy.unlink(missing_ok=True)
