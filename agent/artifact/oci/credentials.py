"""Credentials for registries: docker's config.json, Kubernetes' .dockerconfigjson, podman's auth.json.

All three are `{"auths": {KEY: ENTRY}}`. A key is HOST[:PORT], or HOST/PATH for what lies below it
(containers-auth.json(5)); the longest that fits counts. Programs that the file names as helpers are not run.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.domain.errors import OperatorNeeded
from agent.kit.mask import secrets

_MOST = 1024 * 1024  # bytes of the file
_HUB = ("index.docker.io", "registry-1.docker.io")
_AROUND = re.compile(r"\Ahttps?://|/(?:v[12]/?)?\Z")


@dataclass(frozen=True, slots=True)
class Login:
    """Name and password, or one of two kinds of token. Never shown."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    refresh: str = field(default="", repr=False)  # to be exchanged for access (OAuth2)
    access: str = field(default="", repr=False)  # a bearer token, used as it is

    @property
    def basic(self) -> str:
        """The value of a header Authorization (RFC 7617), "" when there is no name."""
        if not self.user:
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class _Entry(msgspec.Struct, rename="lower"):
    auth: str = ""
    username: str = ""
    password: str = ""
    identity_token: str = msgspec.field(default="", name="identitytoken")
    registry_token: str = msgspec.field(default="", name="registrytoken")


class _File(msgspec.Struct):
    auths: dict[str, _Entry] = msgspec.field(default_factory=dict)


def find(path: Path | None, host: str, name: str) -> Login:
    """The login for a repository; an empty one when there is none. Blocks for one small file.

    Raises OperatorNeeded (RegistryAuthInvalid).
    """
    if path is None:
        return Login()
    entries = {_key(key): entry for key, entry in _read(path).auths.items()}
    parts = [_key(host), *name.split("/")]
    for length in range(len(parts), 0, -1):
        entry = entries.get("/".join(parts[:length]))
        if entry is not None:
            return _login(entry, path)
    return Login()


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
        if len(data) > _MOST:
            raise ValueError("larger than 1 MiB")
        return msgspec.json.decode(data, type=_File)
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError):  # not the error's text: it may quote what is secret
        raise _invalid(path, 'not {"auths": {HOST: {"auth": …}}}') from None


def _login(entry: _Entry, path: Path) -> Login:
    user, password = entry.username, entry.password
    if entry.auth:
        try:
            user, _, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise _invalid(path, "an `auth` is not base64 of USER:PASSWORD") from None
    login = Login(user, password, entry.identity_token, entry.registry_token)
    secrets.add(*(one for one in (password, login.refresh, login.access, entry.auth) if one))
    return login


def _key(key: str) -> str:
    key = _AROUND.sub("", _AROUND.sub("", key, count=1)).lower()
    return "docker.io" if key in _HUB else key


def _invalid(path: Path, message: str) -> OperatorNeeded:
    return OperatorNeeded(
        "RegistryAuthInvalid", message, where=str(path), remedy="correct what --registry-auth-file names"
    )
