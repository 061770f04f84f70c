"""What happens to the bytes of one delivery: hashed, unpacked, judged, published.

All of it runs in threads, one call at a time; only `stop` is called from anywhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from agent.artifact.archive.refusal import Refused
from agent.artifact.archive.unpack import Unpacker
from agent.artifact.inventory import Scribe, beside, discard
from agent.artifact.limits import Limits
from agent.artifact.pipeline import Stopped
from agent.artifact.release import Packing
from agent.artifact.store import Store
from agent.artifact.trust.witness import Witness
from agent.domain.artifact_spec import Checksum
from agent.domain.errors import Permanent
from agent.kit.files import remove_tree


class Worker:
    """A `pipeline.Work`: fed with all bytes in order, ends with a published tree.

    Args:
        release: the id to publish under.
        checksum: what the bytes must have; its hex is given.
        where: the artifact, for errors.
        verified: called with "ALGORITHM:HEX", in the thread, once digest and signatures are right.
        share: files may be shared with other releases, see `agent.artifact.sharing`.
        witness: judges the signatures; None when nobody asks for any.
    """

    def __init__(
        self,
        store: Store,
        release: str,
        packing: Packing,
        checksum: Checksum,
        limits: Limits,
        where: str,
        verified: Callable[[str], None],
        *,
        share: bool = False,
        witness: Witness | None = None,
    ) -> None:
        self._store = store
        self._share = share
        self._release = release
        self._packing = packing
        self._checksum = checksum
        self._limits = limits
        self._where = where
        self._verified = verified
        self._witness = witness
        self._hash = hashlib.new(checksum.algorithm, usedforsecurity=checksum.algorithm.startswith("sha"))
        self._temp = store.new_temp()
        self._unpacker: Unpacker | None = None
        self._scribe: Scribe | None = None
        self._refused: Refused | None = None
        self._stop = Event()

    def stop(self) -> None:
        """End the running call soon, with Stopped."""
        self._stop.set()

    def feed(self, pieces: Sequence[bytes]) -> None:
        """Hash and unpack. Raises OSError, Stopped.

        A refused archive is kept in mind only: when the digest is wrong as well, that is the better answer,
        and only the last byte tells.
        """
        for piece in pieces:
            self._check()
            self._hash.update(piece)
            if self._witness is not None:
                self._witness.feed(piece)
            self._unpack(piece)

    def finish(self, pieces: Sequence[bytes]) -> Path:
        """The last bytes; then judge, sync and publish. Raises Permanent, OSError, Stopped."""
        self.feed(pieces)
        self._judge()
        self._unpack(None)
        if self._refused is not None:
            raise Permanent(
                self._refused.reason, str(self._refused), where=self._where, remedy=self._refused.remedy
            )
        self._close()
        self._check()
        assert self._scribe is not None
        self._scribe.end()
        path = self._store.publish(self._temp, self._release, self._scribe.path, share=self._share)
        self._scribe.close()
        return path

    def discard(self) -> None:
        """Remove all that was written. Raises OSError."""
        self._close()
        if self._scribe is not None:
            discard(self._scribe)
        if self._witness is not None:
            self._witness.discard()
        remove_tree(self._temp)

    def _unpack(self, piece: bytes | None) -> None:
        """Unpack a piece, or with None its end."""
        if self._refused is not None:
            return
        try:
            if self._unpacker is None:
                os.mkdir(self._temp, 0o755)
                self._scribe = Scribe(beside(self._temp))
                how = self._packing
                known = self._checksum.hex.lower() if self._checksum.algorithm == "sha256" else ""
                self._unpacker = Unpacker(
                    self._temp, how.form, how.target, how.strip, self._limits, self._check, self._scribe,
                    sha256=known,
                )  # fmt: skip
            if piece is None:
                self._unpacker.finish()
            else:
                self._unpacker.feed(piece)
        except Refused as refused:
            self._refused = refused
            self._close()

    def _judge(self) -> None:
        expected, got = self._checksum.hex.lower(), self._hash.hexdigest()
        if got != expected:
            name = self._checksum.algorithm
            raise Permanent(
                "ChecksumMismatch",
                f"expected {name}:{expected}, got {name}:{got}",
                where=self._where,
                remedy="correct the checksum, or upload the right file",
            )
        if self._witness is not None:
            self._witness.judge(self._hash.digest())
        self._verified(f"{self._checksum.algorithm}:{got}")

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _close(self) -> None:
        if self._unpacker is not None:
            self._unpacker.close()
