"""The name of what lies in Git: `git+https://HOST/REPOSITORY@COMMIT[//PATH]`, or git+http, or git+ssh."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

SCHEMES = ("git+https", "git+http", "git+ssh")
_REFERENCE = re.compile(
    r"git\+(?P<repository>(?:https?|ssh)://[^/\s?#]+/[^\s?#]+?)"
    r"@(?P<commit>[0-9a-f]{40}(?:[0-9a-f]{24})?)(?://(?P<path>[^\s?#]*))?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A path of a commit: `repository` is Git's URL, `commit` a full id, `path` a file or directory or ""."""

    repository: str
    commit: str
    path: str = ""


def parse(url: str) -> Reference:
    """Raises ValueError."""
    match = _REFERENCE.fullmatch(url)
    parts = [part for part in unquote((match and match["path"]) or "").split("/") if part not in ("", ".")]
    if match is None or ".." in parts or not "".join(parts).isprintable():
        raise ValueError("write git+https://HOST/REPOSITORY@COMMIT//PATH with the commit's full id")
    return Reference(match["repository"], match["commit"], "/".join(parts))
