"""Credentials for a repository: a file that is read again on each use, so that secrets can rotate.

The file holds either lines as git-credential-store(1) keeps them, `https://user:password@host[:port][/path]`,
of which the first that fits the address counts; or one line without a host, `user:password` or a bare
token. A bare token is sent as the password of the user `x-access-token`, by HTTP basic authentication
(RFC 7617): GitHub asks for that name for the tokens of its Apps and ignores it for personal ones;
GitLab, Gitea, Forgejo and Azure DevOps look at the token alone. Where a forge wants a certain name,
write it: a GitLab deploy token as `name:token`, Bitbucket's access token as `x-token-auth:token`.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.domain.errors import OperatorNeeded

REASON = "GitAuth"
TOKEN_USER = "x-access-token"  # noqa: S105 - a name, not a secret
SIZE_MAX = 8192


def read_login(path: Path, url: str = "", *, named_only: bool = False) -> tuple[str, str] | None:
    """User and password for `url` from the file; None when its lines name other places only.

    `named_only`: a line that names no place does not count. Blocks. Raises OperatorNeeded("GitAuth"), never
    quoting the content.
    """
    try:
        # Not blocking: the path may turn out to be a pipe nobody writes to.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _unusable(path, "it is not a regular file")
            data = os.read(fd, SIZE_MAX + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise _unusable(path, error.strerror or "it cannot be read") from error
    if len(data) > SIZE_MAX:
        raise _unusable(path, f"it is larger than {SIZE_MAX} bytes")
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise _unusable(path, "it is not UTF-8 text") from None
    if not text:
        raise _unusable(path, "it is empty")
    if "://" in text.partition("\n")[0]:
        return _of_place(text.splitlines(), url, path)
    if named_only:
        return None
    if not text.isprintable():
        raise _unusable(path, "it holds more than one line")
    user, colon, password = text.partition(":")
    return (user, password) if colon else (TOKEN_USER, text)


def _of_place(lines: list[str], url: str, path: Path) -> tuple[str, str] | None:
    """The login of the first line whose scheme, host, port and path are those of `url`."""
    try:
        wanted = urlsplit(url)
        for line in filter(None, map(str.strip, lines)):
            place = urlsplit(line)
            same = (place.scheme, place.hostname, place.port) == (wanted.scheme, wanted.hostname, wanted.port)
            if same and f"{wanted.path}/".startswith(f"{place.path.rstrip('/')}/"):
                return unquote(place.username or ""), unquote(place.password or "")
    except ValueError:
        raise _unusable(path, "a line is not a URL") from None
    return None


def basic(user: str, password: str) -> str:
    """The value of the Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _unusable(path: Path, why: str) -> OperatorNeeded:
    return OperatorNeeded(
        REASON,
        f"the credentials file cannot be used: {why}",
        where=str(path),
        remedy="put one line into it: a token, or user:password; or https://user:password@host for each host",
    )
