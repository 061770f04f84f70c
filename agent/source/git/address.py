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

    `shown` is the URL without user and password, safe for logs and errors, and what http requests;
    `path` is the path on the machine for file:// and ssh, and "" otherwise; `login` is user and password
    from the URL; `user`, `host` and `port` are those of ssh.
    """

    scheme: str
    shown: str
    path: str = ""
    login: tuple[str, str] | None = field(default=None, repr=False)
    user: str = ""
    host: str = ""
    port: int = 0


SSH_PORT = 22
SSH_USER = "git"  # what every forge wants
_SCHEMES = ("file", "http", "https", "ssh", "git")  # with a typing error in what follows
_SCP = re.compile(r"(?:(?P<user>[^@/:\s]+)@)?(?P<host>\[[0-9a-fA-F:.]+\]|[^@/:\[\]\s]+):(?P<path>(?!//).+)")
_USER_OR_HOST = re.compile(r"[\w.+:][\w.+:%-]*")  # never an option for a program on the way


def mask(url: str) -> str:
    """A URL without user, password, query and fragment, for people to read; never raises."""
    return re.sub(r"^([A-Za-z][\w+.-]*://)?[^/@\s]*@", r"\1", re.split(r"[?#]", url)[0])[:200]


def parse(url: str) -> Address:
    """http://, https://, ssh:// and file:// URLs, and Git's own [USER@]HOST:PATH for ssh.

    Raises OperatorNeeded("RepositoryUrl") for all else.
    """
    if "://" not in url and (scp := _SCP.fullmatch(url.strip())) and scp["host"] not in _SCHEMES:
        return _ssh(url, scp["user"], scp["host"].strip("[]"), None, scp["path"])
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
    if parts.scheme == "ssh":
        if parts.password:
            raise _refused(url, "a password is of no use with ssh; name a key (--ssh-key)")
        path = unquote(parts.path)
        # As git reads it: ssh://host/~user/x is below that user's home, not below the root.
        return _ssh(url, parts.username, host, port, path.removeprefix("/") if path[:2] == "/~" else path)
    if parts.scheme not in ("http", "https"):
        raise _refused(url, "only http://, https://, ssh:// (or user@host:path) and file:// are spoken")
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


def _ssh(url: str, user: str | None, host: str | None, port: int | None, path: str) -> Address:
    user = unquote(user or SSH_USER)
    if not host or not _USER_OR_HOST.fullmatch(host) or not _USER_OR_HOST.fullmatch(user):
        raise _refused(url, "the host or the user is missing or not one")
    if path.strip("/") == "" or path.startswith("-") or not path.isprintable():
        raise _refused(url, "the path is missing or not one")
    place = f"[{host}]" if ":" in host else host
    place = place if port in (None, SSH_PORT) else f"{place}:{port}"
    shown = f"ssh://{place}/{path.removeprefix('/')}"
    return Address("ssh", shown, path=path, user=user, host=host, port=port or SSH_PORT)


def hop(text: str) -> Address:
    """A host to go through, [USER@]HOST[:PORT]. Raises OperatorNeeded("RepositoryUrl")."""
    try:
        return parse(f"ssh://{text}/hop")
    except OperatorNeeded as error:
        raise OperatorNeeded(
            REASON, f"{mask(text)!r} is not [USER@]HOST[:PORT]", remedy="correct --ssh-jump"
        ) from error


def _refused(url: str, why: str) -> OperatorNeeded:
    return OperatorNeeded(
        REASON,
        f"the address of the state repository cannot be used: {why}",
        where=mask(url),
        remedy="correct --repo (EMPTYBOX_REPO)",
    )
