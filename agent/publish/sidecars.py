"""Beside a published file: its checksum, as sha256sum(1) writes it and `checksum: sha256:URL` takes it."""

from __future__ import annotations

from pathlib import Path

from agent.kit.files import write_atomically
from agent.publish.trouble import Trouble

CHECKSUM = ".sha256"


def checksum_line(name: str, sha256: str) -> bytes:
    """The only line of a checksum file."""
    return f"{sha256}  {name}\n".encode()


def write_checksum(path: Path, sha256: str) -> Path:
    """Write PATH.sha256; returns its path. Raises Trouble."""
    beside = path.with_name(path.name + CHECKSUM)
    try:
        write_atomically(beside, checksum_line(path.name, sha256))
    except OSError as error:
        raise Trouble(f"{beside}: {error.strerror or error}") from None
    return beside
