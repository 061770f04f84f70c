"""One SSH connection, by asyncssh: loaded only where a server is reached over SSH.

A connection is made strictly: only hosts whose key is in a known_hosts file, only public keys as proof
of who we are, nothing read from ~/.ssh/config. Host names are looked up in known_hosts as they are
written in the URL, never by the address they resolve to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TypeAlias

import asyncssh

from agent.domain.errors import Failure, OperatorNeeded, Transient
from agent.kit.text import printable
from agent.kit.threads import settled
from agent.ssh.access import SSH_PORT, Host, SshAccess, Words
from agent.ssh.keys import agent_keys, known_hosts, private_key

# Those of OpenSSH without the ones that sign with SHA-1.
_HOST_KEYS = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512",
    "rsa-sha2-256",
)  # fmt: skip
_Key: TypeAlias = asyncssh.SSHKey | asyncssh.SSHKeyPair
_CERTIFICATES = tuple(f"{name}-cert-v01@openssh.com" for name in _HOST_KEYS)

logging.getLogger("asyncssh").setLevel(logging.WARNING)  # it tells of every connection and channel


class _Watch(asyncssh.SSHClient):
    """Remembers the key of a host that is not trusted, to tell which one was offered."""

    offered: asyncssh.SSHKey | None = None

    def validate_host_public_key(
        self,
        host: str,  # noqa: ARG002
        addr: str,  # noqa: ARG002
        port: int,  # noqa: ARG002
        key: asyncssh.SSHKey,
    ) -> bool:
        """Asked only for keys that known_hosts does not have: never trusted."""
        self.offered = key
        return False

    def validate_host_ca_key(
        self,
        host: str,  # noqa: ARG002
        addr: str,  # noqa: ARG002
        port: int,  # noqa: ARG002
        key: asyncssh.SSHKey,
    ) -> bool:
        """The same for the authority of a host certificate."""
        self.offered = key
        return False


class Connection:
    """An authenticated connection with the hops it goes through. Made by `connect`."""

    def __init__(self, hosts: Sequence[asyncssh.SSHClientConnection]) -> None:
        self._hosts = hosts

    @property
    def is_closed(self) -> bool:
        """Whether it cannot be used any more."""
        return self._hosts[-1].is_closed()

    @property
    def ssh(self) -> asyncssh.SSHClientConnection:
        """Asyncssh's own, to the server itself."""
        return self._hosts[-1]

    async def aclose(self) -> None:
        """Drop it, and wait until its sockets are closed."""
        for host in reversed(self._hosts):
            host.abort()
            await host.wait_closed()


async def connect(places: Sequence[Host], access: SshAccess) -> Connection:
    """Connect to the last of `places` through those before it.

    Raises Transient, OperatorNeeded ("HostKeyRefused", and what `access.words` call the others).
    """
    loop = asyncio.get_running_loop()
    known = await settled(loop.run_in_executor(None, known_hosts, access))
    keys: list[asyncssh.SSHKey] = []
    if access.key is not None:
        keys.append(await settled(loop.run_in_executor(None, private_key, access)))
    async with AsyncExitStack() as on_failure:
        hosts: list[asyncssh.SSHClientConnection] = []
        async with AsyncExitStack() as while_connecting:
            offered: list[_Key] = [*keys, *await agent_keys(access, while_connecting)]
            for place in places:
                host = await _connect(place, access, known, offered, hosts[-1] if hosts else None)
                hosts.append(host)
                on_failure.callback(host.abort)
        on_failure.pop_all()
    return Connection(hosts)


async def _connect(
    place: Host,
    access: SshAccess,
    known: asyncssh.SSHKnownHosts,
    keys: Sequence[_Key],
    tunnel: asyncssh.SSHClientConnection | None,
) -> asyncssh.SSHClientConnection:
    watch = _Watch()
    trusted, authorities, revoked = known.match(
        place.host, "", None if place.port == SSH_PORT else place.port
    )[:3]
    first = [name.decode() for key in trusted for name in key.sig_algorithms if name.decode() in _HOST_KEYS]
    # The kinds of key that are trusted first, then all the others: a server that has only those
    # is refused with the key it offers, not for having no algorithm in common.
    algorithms = [*(_CERTIFICATES if authorities else ()), *dict.fromkeys([*first, *_HOST_KEYS])]
    where = place.shown
    try:
        return await asyncssh.connect(
            place.host,
            place.port,
            client_factory=lambda: watch,
            config=None,
            known_hosts=(trusted, authorities, revoked),
            x509_trusted_certs=None,
            server_host_key_algs=algorithms,
            username=place.user,
            client_keys=keys or None,
            agent_path=None,
            preferred_auth=("publickey",),
            gss_host=None,
            tunnel=tunnel or (),
            connect_timeout=None,
            login_timeout=0,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise _untrusted(error, watch.offered, where, access, known_at_all=bool(trusted)) from error
    except asyncssh.PermissionDenied as error:
        raise _not_let_in(keys, where, access.words) from error
    except (asyncssh.Error, OSError) as error:
        raise unavailable(error, where, access.words) from error


def unavailable(error: Exception, where: str, called: Words) -> Failure:
    """A connection that cannot be made, or that broke."""
    if isinstance(error, asyncssh.DisconnectError):
        words = f"the SSH server hangs up: {printable(error.reason, 200)}"
    elif isinstance(error, asyncssh.ChannelOpenError):
        words = f"the SSH server opens no channel: {printable(error.reason, 200)}"
    elif isinstance(error, OSError):
        words = f"the SSH server cannot be reached: {error.strerror or type(error).__name__}"
    else:
        words = f"the SSH connection failed ({type(error).__name__})"
    return Transient(called.unavailable, words, where=where)


def _untrusted(
    error: Exception, offered: asyncssh.SSHKey | None, where: str, access: SshAccess, *, known_at_all: bool
) -> Failure:
    files = " or ".join(str(path) for path in access.known_hosts_files)
    if offered is None:  # revoked, or a certificate that is not in order
        words = f"the SSH server's host key is refused: {printable(str(error), 200)}"
        return OperatorNeeded("HostKeyRefused", words, where=where, remedy=f"check {files}")
    name = f"{offered.get_algorithm()} {offered.get_fingerprint()}"
    if known_at_all:
        words = f"the SSH server's host key is not the one we know; it offers {name}"
        remedy = f"if the server's keys were changed, replace them in {files}; else somebody is in between"
    else:
        words = f"the SSH server is not a known host; it offers {name}"
        remedy = f"compare that with what its operator publishes, then add its line to {files}"
    return OperatorNeeded("HostKeyRefused", words, where=where, remedy=remedy)


def _not_let_in(keys: Sequence[_Key], where: str, called: Words) -> Failure:
    if not keys:
        words, remedy = (
            "the SSH server wants a key, and we have none",
            f"name one with {called.key}{called.more}",
        )
    else:
        names = ", ".join(key.get_fingerprint() for key in keys if isinstance(key, asyncssh.SSHKey))
        words = f"the SSH server refuses our keys ({names or 'those of the agent'})"
        remedy = called.allow
    return OperatorNeeded(called.denied, words, where=where, remedy=remedy)
