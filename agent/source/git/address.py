"""Where the repository is: the URL of the settings, taken apart, its secrets kept out of sight."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from agent.domain.errors import OperatorNeeded

REASON = "RepositoryUrl"


@dataclass(frozen=True, slots=True)
class Address:
    """A repository's place.

    `shown` is the URL without user and password, safe for logs and errors, and what is requested;
    `path` is the local path of file:// and "" otherwise; `login` is user and password from the URL.
    """

    scheme: str
    shown: str
    path: str = ""
    login: tuple[str, str] | None = field(default=None, repr=False)


def mask(url: str) -> str:
    """A URL without user, password, query and fragment, for people to read; never raises."""
    return re.sub(r"^([A-Za-z][\w+.-]*://)?[^/@\s]*@", r"\1", re.split(r"[?#]", url)[0])[:200]


def parse(url: str) -> Address:
    """http://, https:// and file:// URLs. Raises OperatorNeeded("RepositoryUrl") for all else."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(url, "it is not a URL") from error
    if parts.query or parts.fragment:
        raise _refused(url, "a query or fragment does not belong there")
    if parts.scheme == "file":
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
            raise _refused(url, "write file:///absolute/path")
        return Address("file", f"file://{parts.path}", path=path)
    if parts.scheme not in ("http", "https"):
        late = " (ssh is not yet supported)" if parts.scheme == "ssh" or re.match(r"[\w.-]+@", url) else ""
        raise _refused(url, f"only http://, https:// and file:// are spoken{late}")
    if not host:
        raise _refused(url, "the host is missing")
    place = f"[{host}]" if ":" in host else host
    if port is not None:
        place = f"{place}:{port}"
    login = None
    if parts.username or parts.password:
        login = (unquote(parts.username or ""), unquote(parts.password or ""))
    shown = urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
    return Address(parts.scheme, shown, login=login)


def _refused(url: str, why: str) -> OperatorNeeded:
    return OperatorNeeded(
        REASON,
        f"the address of the state repository cannot be used: {why}",
        where=mask(url),
        remedy="correct --repo (EMPTYBOX_REPO)",
    )
