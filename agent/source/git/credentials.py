"""Credentials for a repository: a file that is read again on each use, so that secrets can rotate.

The file holds one line: `user:password`, or a bare token. A bare token is sent as the password of
the user `x-access-token`, by HTTP basic authentication (RFC 7617): GitHub asks for that name for the
tokens of its Apps and ignores it for personal ones; GitLab, Gitea, Forgejo and Azure DevOps look at
the token alone. Where a forge wants a certain name, write it: a GitLab deploy token as
`name:token`, Bitbucket's access token as `x-token-auth:token`.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

from agent.domain.errors import OperatorNeeded

REASON = "GitAuth"
TOKEN_USER = "x-access-token"  # noqa: S105 - a name, not a secret
SIZE_MAX = 8192


def read_login(path: Path) -> tuple[str, str]:
    """User and password from the file. Raises OperatorNeeded("GitAuth"), never quoting its content."""
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
    if not text.isprintable():
        raise _unusable(path, "it holds more than one line")
    user, colon, password = text.partition(":")
    return (user, password) if colon else (TOKEN_USER, text)


def basic(user: str, password: str) -> str:
    """The value of the Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _unusable(path: Path, why: str) -> OperatorNeeded:
    return OperatorNeeded(
        REASON,
        f"the credentials file cannot be used: {why}",
        where=str(path),
        remedy="put one line into it: a token, or user:password",
    )
