"""Who may ask for changes: whoever can open the Unix socket, or brings the control token (RFC 6750).

The token file is read on each use, so that a token is changed by changing the file. Without a token
file the admin listener takes no wishes at all. Browsers cannot be tricked into wishes: they neither
reach the socket nor know the token.
"""

from __future__ import annotations

import hmac
import os
import socket
import struct
from collections.abc import Iterator
from functools import wraps
from pathlib import Path

from aiohttp import web

from agent.kit.mask import secrets
from agent.web.context import CONTEXT, DOOR, Door
from agent.web.problem import Handler, Problem

TOKEN_MAX = 4096  # bytes of the token file that are looked at
_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="emptybox"'}


def privileged(handler: Handler) -> Handler:
    """Let a handler be reached only by the socket or with the token."""

    @wraps(handler)
    async def checked(request: web.Request) -> web.StreamResponse:
        if request.app[DOOR] is not Door.SOCKET:
            _check_token(request)
        return await handler(request)

    return checked


def _check_token(request: web.Request) -> None:
    token = _token(request.app[CONTEXT].settings.control_token_file)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Problem(401, "TokenMissing", "send Authorization: Bearer TOKEN", headers=_CHALLENGE)
    if not hmac.compare_digest(given.strip().encode(errors="surrogateescape"), token):
        raise Problem(401, "TokenWrong", "this is not the control token", headers=_CHALLENGE)


def _token(file: Path | None) -> bytes:
    """The token in force. Raises Problem when there is none."""
    how = "use the Unix socket (the emptybox command does), or start the agent with --control-token-file FILE"
    if file is None:
        raise Problem(403, "ControlClosed", f"this listener takes no wishes; {how}")
    try:
        with file.open("rb") as opened:
            token = opened.read(TOKEN_MAX).strip()
    except OSError as error:
        problem = f"the control token file cannot be read: {error.strerror}"
        raise Problem(403, "ControlClosed", f"{problem}; {how}") from None
    if not token:
        raise Problem(403, "ControlClosed", f"the control token file is empty; {how}")
    secrets.add(token)
    return token


def who(request: web.Request) -> str:
    """Whose wish this is, for history: the user at the other end of the socket, or the token's bearer."""
    if request.app[DOOR] is not Door.SOCKET:
        return f"the token's bearer at {request.remote}"
    if (peer := _peer(request)) is None:  # gone already
        return "a user of the socket"
    return f"uid {peer[1]}"


def check_is_no_app(request: web.Request) -> None:
    """Refuse a wish that a program of an app has, by the socket, as the agent's own user.

    All of these descend from the keeper, whatever became of their parents: it is their subreaper (prctl(2)).
    Blocks for a few reads of /proc. Raises Problem.
    """
    if request.app[DOOR] is not Door.SOCKET:
        return
    peer, keeper = _peer(request), os.getppid()
    if peer is not None:
        above = list(_ancestors(peer[0]))
        if above and (keeper not in above or os.getpid() in above):
            return
    raise Problem(403, "NotForApps", "programs of apps may not ask for this")


def _ancestors(pid: int) -> Iterator[int]:
    """A process and those above it; none when it is gone."""
    while pid > 0:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return
        yield pid
        pid = int(stat.rpartition(")")[2].split()[1])


def _peer(request: web.Request) -> tuple[int, int] | None:
    """Pid and uid at the other end of the socket; None when it is closed."""
    connection = request.get_extra_info("socket")
    if connection is None:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(raw)
    return pid, uid
