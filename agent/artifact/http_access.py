"""What the agent's settings say about reaching http(s) servers: whom to trust, and who we are.

Logins stand in a file as netrc(5) has it: `machine HOST[:PORT] login USER password PASSWORD`. They are read
again on each use, so that they are changed by changing the file. An entry `default` does not count: it would
give a login to every host that a state names.
"""

from __future__ import annotations

import asyncio
import base64
import netrc
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from agent.domain.errors import OperatorNeeded
from agent.kit.mask import secrets

_MOST = 1024 * 1024  # bytes of either file


@dataclass(frozen=True, slots=True)
class HttpAccess:
    """`authority`: PEM file of authorities trusted beside the system's. `logins`: a netrc file."""

    authority: Path | None = None
    logins: Path | None = None


class Trust:
    """What certificates are judged by: the system's authorities and those of a file, as they are now."""

    def __init__(self, authority: Path | None) -> None:
        self._authority = authority
        self._context: ssl.SSLContext | None = None
        self._stamp: tuple[int, int, int] | None = None  # of the file that the context was made with

    async def context(self) -> ssl.SSLContext | bool:
        """For aiohttp; True is its own, of the system's authorities. Raises OperatorNeeded."""
        return True if self._authority is None else await asyncio.to_thread(self._made, self._authority)

    def pem(self) -> bytes:
        """The file's content, b"" for none, for whoever makes contexts of another kind. Blocks.

        Raises OperatorNeeded.
        """
        return b"" if self._authority is None else _read(self._authority)

    def _made(self, path: Path) -> ssl.SSLContext:
        try:
            status = os.stat(path)
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            if self._context is None or stamp != self._stamp:
                context = ssl.create_default_context()
                context.load_verify_locations(cadata=_read(path).decode("ascii", "replace"))
                self._context, self._stamp = context, stamp
        except OSError as error:  # ssl.SSLError is one
            raise _untrusting(path, error) from None
        return self._context


async def authorization(logins: Path | None, url: URL) -> str:
    """The value of a header Authorization for `url`: of its own login, else of its host's; "" without one.

    Raises OperatorNeeded (LoginsInvalid), never quoting the file.
    """
    if url.user is not None:
        return basic(url.user, url.password or "")
    if logins is None or not url.host:
        return ""
    return await asyncio.to_thread(_login, logins, url.host, url.port)


def _login(path: Path, host: str, port: int | None) -> str:
    try:
        if path.stat().st_size > _MOST:
            raise _illegible(path, "larger than 1 MiB")
        hosts = netrc.netrc(str(path)).hosts
    except OSError as error:
        raise _illegible(path, error.strerror or type(error).__name__) from None
    except (netrc.NetrcParseError, ValueError):  # not the error's text: it quotes the file
        raise _illegible(path, "not lines of machine HOST login USER password PASSWORD") from None
    for name in (f"{host}:{port}", host):
        if name != "default" and name in hosts:
            user, account, password = hosts[name]
            return basic(user or account, password)
    return ""


def basic(user: str, password: str) -> str:
    """The value of a header (RFC 7617), masked from now on."""
    proof = base64.b64encode(f"{user}:{password}".encode()).decode()
    secrets.add(password, proof)
    return f"Basic {proof}"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST)
    except OSError as error:
        raise _untrusting(path, error) from None


def _untrusting(path: Path, error: OSError) -> OperatorNeeded:
    words = "no PEM file of certificates" if isinstance(error, ssl.SSLError) else error.strerror
    return OperatorNeeded(
        "CertificateRefused",
        f"the file of authorities cannot be used: {words or type(error).__name__}",
        where=str(path),
        remedy="correct what --artifact-ca names",
    )


def _illegible(path: Path, message: str) -> OperatorNeeded:
    return OperatorNeeded("LoginsInvalid", message, where=str(path), remedy="correct what --netrc-file names")
