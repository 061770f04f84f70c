"""What lies beside a published file: its checksum and, with a key, its signature.

`FILE.sha256` is as sha256sum(1) writes it and `checksum: sha256:URL` takes it; `FILE.minisig` or `FILE.sig`
is what `signature` in a state looks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.kit.files import write_atomically
from agent.kit.signatures.making import sign_file
from agent.publish.trouble import Trouble

CHECKSUM = ".sha256"
_PASSWORD_MAX = 1024  # bytes


@dataclass(frozen=True, slots=True)
class Signing:
    """A private key of minisign or OpenSSH, and a file with its password, each read when needed."""

    key: Path
    password: Path | None = None


def sidecars(path: Path, name: str, sha256: str, signing: Signing | None) -> dict[str, bytes]:
    """What lies beside the file at `path`, to be called `name`: suffix to content. Blocks. Raises Trouble."""
    found = {CHECKSUM: f"{sha256}  {name}\n".encode()}
    if signing is not None:
        try:
            made = sign_file(path, signing.key, _password(signing.password), f"file:{name}\thashed")
        except ValueError as error:
            raise Trouble(f"{signing.key}: {error}") from None
        except OSError as error:
            raise Trouble(f"{error.filename or signing.key}: {error.strerror or error}") from None
        found[made.suffix] = made.data
    return found


def write_beside(path: Path, contents: dict[str, bytes]) -> dict[str, Path]:
    """Write PATH and suffix for each; returns where. Raises Trouble."""
    written = {}
    for suffix, data in contents.items():
        beside = written[suffix] = path.with_name(path.name + suffix)
        try:
            write_atomically(beside, data)
        except OSError as error:
            raise Trouble(f"{beside}: {error.strerror or error}") from None
    return written


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        data = file.read(_PASSWORD_MAX + 1)
    try:
        if len(data) > _PASSWORD_MAX:
            raise ValueError
        return data.decode().rstrip("\r\n")
    except ValueError:
        raise Trouble(f"{path}: this is no password") from None
