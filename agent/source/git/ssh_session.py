"""One SSH connection and its channels, by asyncssh: loaded only where a repository is reached over SSH.

A connection is made strictly: only hosts whose key is in a known_hosts file, only public keys as proof
of who we are, nothing read from ~/.ssh/config. Host names are looked up in known_hosts as they are
written in the URL, never by the address they resolve to.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import TypeAlias

import asyncssh

from agent.domain.errors import Failure, OperatorNeeded, Transient
from agent.source.git.access import SshAccess
from agent.source.git.address import SSH_PORT, Address, hop
from agent.source.git.protocol import printable
from agent.source.git.ssh_keys import agent_keys, known_hosts, private_key
from agent.source.git.threads import stoppable

STDERR_MAX = 4096  # bytes kept of what the server's program complains
BUFFER_MAX = 1 << 20  # bytes received and not yet taken, at which the server is asked to wait
# Those of OpenSSH without the ones that sign with SHA-1.
_HOST_KEYS = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512",
    "rsa-sha2-256",
)  # fmt: skip
_Key: TypeAlias = asyncssh.SSHKey | asyncssh.SSHKeyPair
_CERTIFICATES = tuple(f"{name}-cert-v01@openssh.com" for name in _HOST_KEYS)

logging.getLogger("asyncssh").setLevel(logging.WARNING)  # it tells of every connection and channel


class Channel(asyncssh.SSHClientSession[bytes]):
    """One program on the server: its output as it comes, the end of its complaints, its exit status."""

    def __init__(self) -> None:
        self.exit_status: int | None = None
        self.heard = False
        self._complaints = bytearray()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    @property
    def complaints(self) -> str:
        """What the program wrote to its standard error, fit to be shown."""
        return printable(self._complaints.decode("utf-8", "replace"), 200)

    def send(self, data: bytes) -> None:
        """Send all that there is to send: the program's input ends with it. Raises OSError."""
        assert self._channel is not None
        self._channel.write(data)
        self._channel.write_eof()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The program's output until its end. Raises asyncssh.Error or OSError when the connection broke."""
        while True:
            while self._chunks:
                data = self._chunks.popleft()
                self._size -= len(data)
                if self._channel is not None and not self._ended and self._size < BUFFER_MAX:
                    self._channel.resume_reading()
                yield data
            if self._ended:
                if self._error is not None:
                    raise self._error
                return
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Drop the channel; idempotent."""
        if self._channel is not None and not self._ended:
            self._channel.abort()

    # What asyncssh calls.

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """The channel is open."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """The program wrote something."""
        self.heard = True
        if datatype is not None:
            self._complaints += data[: STDERR_MAX - len(self._complaints)]
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= BUFFER_MAX and self._channel is not None:
            self._channel.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        """The program closed its output: its exit status is still to come."""
        return True

    def exit_status_received(self, status: int) -> None:
        """The program ended."""
        self.exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed, in order or not."""
        self._ended, self._error = True, exc
        self._news.set()


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

    async def run(self, command: str) -> Channel:
        """Start a program. Raises asyncssh.Error, OSError."""
        channel = Channel()
        await self._hosts[-1].create_session(
            lambda: channel, command, env={"GIT_PROTOCOL": "version=2"}, encoding=None
        )
        return channel

    async def aclose(self) -> None:
        """Drop it, and wait until its sockets are closed."""
        for host in reversed(self._hosts):
            host.abort()
            await host.wait_closed()


async def connect(address: Address, access: SshAccess) -> Connection:
    """Connect, through the hops.

    Raises Transient("GitUnavailable"), OperatorNeeded("GitAuth", "HostKeyRefused", "RepositoryUrl").
    """
    known = await stoppable(lambda _: known_hosts(access))
    keys: list[asyncssh.SSHKey] = []
    if access.key is not None:
        keys.append(await stoppable(lambda _: private_key(access)))
    async with AsyncExitStack() as on_failure:
        hosts: list[asyncssh.SSHClientConnection] = []
        async with AsyncExitStack() as while_connecting:
            offered: list[_Key] = [*keys, *await agent_keys(access, while_connecting)]
            for place in (*map(hop, access.jumps), address):
                host = await _connect(place, access, known, offered, hosts[-1] if hosts else None)
                hosts.append(host)
                on_failure.callback(host.abort)
        on_failure.pop_all()
    return Connection(hosts)


async def _connect(
    place: Address,
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
    where = place.shown.rpartition("/hop")[0] if place.path == "/hop" else place.shown
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
        raise _not_let_in(keys, where) from error
    except (asyncssh.Error, OSError) as error:
        raise unavailable(error, where) from error


def unavailable(error: Exception, where: str) -> Failure:
    """A connection that cannot be made, or that broke."""
    if isinstance(error, asyncssh.DisconnectError):
        words = f"the SSH server hangs up: {printable(error.reason, 200)}"
    elif isinstance(error, asyncssh.ChannelOpenError):
        words = f"the SSH server opens no channel: {printable(error.reason, 200)}"
    elif isinstance(error, OSError):
        words = f"the SSH server cannot be reached: {error.strerror or type(error).__name__}"
    else:
        words = f"the SSH connection failed ({type(error).__name__})"
    return Transient("GitUnavailable", words, where=where)


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


def _not_let_in(keys: Sequence[_Key], where: str) -> Failure:
    if not keys:
        words, remedy = (
            "the SSH server wants a key, and we have none",
            "name one with --ssh-key or --ssh-agent",
        )
    else:
        names = ", ".join(key.get_fingerprint() for key in keys if isinstance(key, asyncssh.SSHKey))
        words = f"the SSH server refuses our keys ({names or 'those of the agent'})"
        remedy = "add the public key to the repository as a deploy key that may read"
    return OperatorNeeded("GitAuth", words, where=where, remedy=remedy)
