"""The name of what lies in an OCI registry: `oci://HOST[:PORT]/NAME[:TAG][@sha256:HEX]`.

The grammar is that of the OCI Distribution Specification 1.1 ("Pulling manifests").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "oci"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"oci://(?P<host>{_HOST})/(?P<name>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@sha256:(?P<hex>[0-9a-f]{64}))?\Z"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A manifest in a registry. `tag` and `hex` (of its sha256) are "" where they are not given."""

    host: str
    name: str
    tag: str = ""
    hex: str = ""


def parse(url: str) -> Reference:
    """Raises ValueError."""
    match = _REFERENCE.match(url) if len(url) <= 1024 else None
    if match is None or len(match["name"]) > 255:
        raise ValueError("write oci://HOST/NAME:TAG or oci://HOST/NAME@sha256:…, the name in lower case")
    return Reference(match["host"], match["name"], match["tag"] or "", match["hex"] or "")
