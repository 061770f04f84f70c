"""sftp:// against a real sshd, in part through a relay that stops."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.limits import DEFAULTS, Limits
from agent.artifact.sftp import parse
from agent.artifact.store import Store
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.ssh.access import SFTP, SshAccess
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import release, spec
from tests.kit.ssh_server import Sshd

MIB = 1 << 20


@pytest.fixture
async def sshd(tmp_path: Path) -> AsyncIterator[Sshd]:
    async with Sshd(tmp_path / "ssh") as server:
        server.allow(server.key("deploy"))
        yield server


@pytest.fixture
def access(sshd: Sshd) -> SshAccess:
    return SshAccess(key=sshd.key("deploy"), known_hosts=(sshd.known_hosts(),), words=SFTP)


def put(sshd: Sshd, tmp_path: Path, data: bytes, name: str = "web.tar.gz") -> str:
    """A file on the server; returns its URL."""
    path = tmp_path / "served" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return sshd.url(path).replace("ssh://", "sftp://")


async def bring(store: Store, access: SshAccess, url: str, data: bytes, limits: Limits = DEFAULTS) -> Path:
    async with Artifacts(store, sftp=access, limits=limits) as artifacts:
        async with artifacts.deliver(spec(url, data, archive="auto"), "web") as delivery:
            return await delivery.published()


async def fail(
    store: Store, access: SshAccess, url: str, data: bytes = b"x", limits: Limits = DEFAULTS
) -> Failure:
    with pytest.raises(Failure) as caught:
        await bring(store, access, url, data, limits)
    assert_no_traces(store)
    return caught.value


class Relay:
    """Stands before a server, and lets `most` bytes of its answers through, on all connections together."""

    def __init__(self, sshd: Sshd, most: int) -> None:
        self.sshd = sshd
        self.most = most
        self.passed = 0
        self.stopped = asyncio.Event()
        self.cut = False
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
            for writer in self._writers:
                writer.transport.abort()

    def url(self, url: str) -> str:
        return url.replace(f":{self.sshd.port}/", f":{self.port}/")

    def known(self, access: SshAccess, path: Path) -> SshAccess:
        line = access.known_hosts[0].read_text().replace(f":{self.sshd.port} ", f":{self.port} ")
        path.write_text(line)
        return replace(access, known_hosts=(path,))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.sshd.port)
        self._writers |= {writer, back}
        await asyncio.gather(self._pump(reader, back, count=False), self._pump(there, writer, count=True))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.passed += len(data) if count else 0
                if self.passed > self.most:
                    self.stopped.set()
                    if self.cut:
                        break
                    await asyncio.Event().wait()
                writer.write(data)
                await writer.drain()
        for each in self._writers if self.cut else (writer,):
            each.close()


async def test_a_file_is_fetched_with_the_settings_key(
    sshd: Sshd, access: SshAccess, store: Store, tmp_path: Path
) -> None:
    data = release(b"1.0", 3_000_000)
    url = put(sshd, tmp_path, data, "web 1.0.tar.gz").replace(" ", "%20")
    tree = await bring(store, access, url, data)
    assert (tree / "bin/web").read_bytes() == b"1.0"
    async with Artifacts(store, sftp=access) as artifacts:
        assert await artifacts.reach(spec(url)) == len(data)
        for _ in range(2):
            pinned = await artifacts.pin(spec(url))
            assert pinned.checksum.hex == hashlib.sha256(data).hexdigest()


async def test_an_encrypted_key_is_opened_with_its_passphrase(
    sshd: Sshd, access: SshAccess, store: Store, tmp_path: Path
) -> None:
    key = sshd.key("encrypted", passphrase="open sesame")
    sshd.allow(key)
    data = release()
    url = put(sshd, tmp_path, data)
    failure = await fail(store, replace(access, key=key), url, data)
    assert (failure.reason, "--sftp-passphrase-file" in str(failure)) == ("ArtifactDenied", True)
    (tmp_path / "passphrase").write_text("open sesame\n")
    opened = replace(access, key=key, passphrase=tmp_path / "passphrase")
    assert (await bring(store, opened, url, data)).is_dir()


async def test_a_host_that_is_not_known_is_refused_with_the_key_it_offers(
    sshd: Sshd, access: SshAccess, store: Store, tmp_path: Path
) -> None:
    url = put(sshd, tmp_path, release())
    (tmp_path / "nobody").touch()
    failure = await fail(store, replace(access, known_hosts=(tmp_path / "nobody",)), url)
    assert isinstance(failure, OperatorNeeded)
    assert failure.reason == "HostKeyRefused"
    assert sshd.fingerprint() in str(failure)
    assert sshd.logins() == 0


async def test_a_key_that_the_server_does_not_know_and_none_at_all_are_the_operators(
    sshd: Sshd, access: SshAccess, store: Store, tmp_path: Path
) -> None:
    url = put(sshd, tmp_path, release())
    failure = await fail(store, replace(access, key=sshd.key("stranger")), url)
    assert isinstance(failure, OperatorNeeded)
    assert (failure.reason, "authorized_keys" in str(failure)) == ("ArtifactDenied", True)
    failure = await fail(store, replace(access, key=None), url)
    assert (failure.reason, "--sftp-key" in str(failure)) == ("ArtifactDenied", True)


async def test_what_is_not_there_or_no_file_or_forbidden_is_told_apart(
    sshd: Sshd, access: SshAccess, store: Store, tmp_path: Path
) -> None:
    url = put(sshd, tmp_path, release())
    assert (await fail(store, access, url + ".asc")).reason == "ArtifactNotFound"
    folder = await fail(store, access, url.rpartition("/")[0])
    assert (type(folder), folder.reason) == (Permanent, "ArtifactRefused")
    await sshd.stop()
    down = await fail(store, access, url)
    assert (type(down), down.reason) == (Transient, "ArtifactUnavailable")
    async with Sshd(tmp_path / "strict", options=["ForceCommand internal-sftp -P open"]) as strict:
        strict.allow(access.key or Path())
        known = replace(access, known_hosts=(strict.known_hosts(),))
        denied = await fail(store, known, put(strict, tmp_path, release()))
        assert (type(denied), denied.reason) == (OperatorNeeded, "ArtifactDenied")


async def test_a_server_that_falls_silent_or_hangs_up_is_told_in_time(
    sshd: Sshd, access: SshAccess, store: Store, tmp_path: Path
) -> None:
    data = os.urandom(8 * MIB)
    url = put(sshd, tmp_path, data, "noise")
    for cut, reason in ((False, "ArtifactTimeout"), (True, "ArtifactUnavailable")):
        async with Relay(sshd, 3 * MIB).running() as relay:
            relay.cut = cut
            known = relay.known(access, tmp_path / "relayed")
            failure = await fail(store, known, relay.url(url), data, Limits(idle=2.0 if not cut else 30.0))
            assert (type(failure), failure.reason) == (Transient, reason)


@pytest.mark.parametrize("changed", ["no", "bytes and time", "bytes alone"])
async def test_a_download_goes_on_where_it_ended_and_the_digest_decides(
    changed: str, sshd: Sshd, access: SshAccess, store: Store, tmp_path: Path
) -> None:
    data = os.urandom(20 * MIB)
    url = put(sshd, tmp_path, data if changed == "no" else bytes(len(data)), "noise")
    file = tmp_path / "served/noise"
    os.utime(file, (1_000_000_000, 1_000_000_000))
    async with Relay(sshd, 6 * MIB).running() as relay:
        known = relay.known(access, tmp_path / "relayed")
        async with Artifacts(store, sftp=known) as artifacts:
            async with artifacts.deliver(spec(relay.url(url), data), "web"):
                async with asyncio.timeout(30):
                    await relay.stopped.wait()
                    while not any(p.stat().st_size > MIB for p in (store.root / "partial").glob("*/bytes")):
                        await asyncio.sleep(0.01)
        file.write_bytes(data)
        if changed != "bytes and time":
            os.utime(file, (1_000_000_000, 1_000_000_000))
        relay.most, relay.passed = 1 << 40, 0
        tree = await bring(store, known, relay.url(url), data)
        assert (tree / "bin/web").read_bytes() == data
        whole = relay.passed > len(data)
    assert whole is (changed != "no")


def test_a_url_names_a_user_a_host_and_a_path() -> None:
    host, path = parse("sftp://ada@[::1]:2222/~/web%201.tar")
    assert (host.host, host.port, host.user, path) == ("::1", 2222, "ada", "web 1.tar")
    assert parse("sftp://a%40b@h/srv/web")[1] == "/srv/web"
    assert parse("sftp://a%40b@h/srv/web")[0].user == "a@b"
    for url in (
        "sftp://h/x",
        "sftp://a@/x",
        "sftp://a@h",
        "sftp://a@h:x/y",
        "sftp://a:b@h/x",
        "sftp://a@h/x?y",
    ):
        with pytest.raises(Permanent) as caught:
            parse(url)
        assert caught.value.reason == "UrlInvalid"


CHILD = """
import asyncio, sys
from pathlib import Path
import msgspec
from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.artifact_spec import Checksum
from agent.ssh.access import SFTP, SshAccess
from tests.artifact.specs import spec
from tests.kit.peak import peak

async def main():
    root, key, known, *rest = sys.argv[1:]
    access = SshAccess(key=Path(key), known_hosts=(Path(known),), words=SFTP)
    async with Artifacts(Store(Path(root)), sftp=access) as artifacts:
        async def deliver(url, digest):
            wanted = msgspec.structs.replace(spec(url), checksum=Checksum(algorithm="sha256", hex=digest))
            async with artifacts.deliver(wanted, "web") as delivery:
                await delivery.published()
        await deliver(*rest[:2])
        before = peak()
        await deliver(*rest[2:])
        print(peak() - before)

asyncio.run(main())
"""


async def test_memory_grows_by_less_than_32_mib_while_120_mib_come(
    sshd: Sshd, access: SshAccess, tmp_path: Path
) -> None:
    arguments = [str(tmp_path / "store"), str(access.key), str(access.known_hosts[0])]
    for name, data in (("small", os.urandom(MIB)), ("large", os.urandom(MIB) * 120)):
        arguments += [put(sshd, tmp_path, data, name), hashlib.sha256(data).hexdigest()]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert child.returncode == 0
    assert int(output) < 32, f"{int(output)} MiB"
