"""What is wanted of an app's artifact: where its bytes are, and what they must be.

See `agent.domain.spec`, of whose structs these are parts.
"""

from __future__ import annotations

import msgspec


class Checksum(msgspec.Struct, frozen=True, kw_only=True):
    """Expected digest of the artifact's bytes.

    Either `hex` is given, or `url` names a checksum file (GNU or BSD lines) in which the line
    for the artifact's base name is looked up.
    """

    algorithm: str  # sha256, sha512, or where the state allows it sha1, md5
    hex: str = ""
    url: str = ""


class SignatureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Who must have signed the artifact's bytes, or its manifest; and where the signature lies.

    `kind` is a format of `agent.kit.signatures.keys` with `keys` in it, both "" where the agent's settings
    alone say whose signatures count. Of `url` and `text` (the signature itself) at most one is given; else
    it lies beside the artifact, under the name usual for its format.
    """

    kind: str = ""
    keys: str = ""
    url: str = ""
    text: str = ""


class ArtifactSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes to fetch and how to unpack them."""

    url: str
    checksum: Checksum
    signature: SignatureSpec | None = None
    strip: int = 0  # leading path components to drop
    plain_name: str = ""  # target path of an artifact that is one plain file; "" = bin/<app>
    archive: str = "auto"  # "auto" (by content), "none", tar, tar.gz, …, zip, or gz, bz2, xz, zst
    mirrors: tuple[str, ...] = ()  # URLs of the same bytes, tried in order when `url` fails
    headers: dict[str, str] = {}  # for the origin of `url` alone; may hold secrets

    @property
    def what(self) -> ArtifactSpec:
        """The same without what only says where else, as whom, and signed by whom its bytes are to be had."""
        return msgspec.structs.replace(self, mirrors=(), headers={}, signature=None)
