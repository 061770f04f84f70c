"""A certificate that ends while all runs: what serves goes on, it is named, and a new one is noticed."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.kit.box import Box, Load
from tests.kit.certificates import Authority
from tests.kit.faulty import Faulty
from tests.kit.unruly import Unruly
from tests.kit.watching import Watch, condition
from tests.kit.world import World


class Guarded:
    """A server behind TLS, whose certificate can be changed."""

    def __init__(self, authority: Authority, network: Faulty, context: ssl.SSLContext) -> None:
        self._authority, self._context = authority, context
        self.network = network

    async def show(self, hours: float) -> None:
        """From now on show a certificate that ends then; who is connected has to connect anew."""
        self._context.load_cert_chain(self._authority.issue(hours))
        await self.network.become("")


@asynccontextmanager
async def guarded(authority: Authority, port: int) -> AsyncIterator[Guarded]:
    """The server at `port` behind TLS, its certificate being good."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue(20))
    async with Faulty(port, context) as network:
        yield Guarded(authority, network, context)


async def test_the_git_servers_certificate_ends_and_is_renewed(box: Box, tmp_path: Path) -> None:
    address = urlsplit(box.repository.url)
    assert address.port is not None
    authority = Authority(tmp_path)
    async with guarded(authority, address.port) as front:
        box.settings["--repo"] = f"https://127.0.0.1:{front.network.port}{address.path}"
        box.settings["--git-ca"] = str(authority.file)
        world = World(box)
        await world.running()
        async with Load(box.port) as load, Watch(box, "Git's certificate has ended") as watch:
            await front.show(-1)
            await world.deploy("2.0", push=True)

            async def named() -> bool:
                told = condition(await box.status(), "SourceReachable")
                return (
                    told["status"] == "False" and told["reason"] == "GitTls" and "expired" in told["message"]
                )

            await box.until(named)
            assert watch.versions == {"1.0"}
            await front.show(20)
            await box.proven("2.0")
            assert condition(await box.status(), "SourceReachable")["status"] == "True"
        assert load.failures == []
        await box.stop()


async def test_the_artifact_servers_certificate_ends_and_is_renewed(box: Box, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with Unruly() as server, guarded(authority, server.port) as front:
        box.settings["--artifact-ca"] = str(authority.file)
        world = World(box, server)

        def artifact(version: str) -> dict[str, object]:
            plain = world.artifact(version)
            port = front.network.port
            return {
                **plain,
                "url": plain["url"].replace(f"http://127.0.0.1:{server.port}", f"https://127.0.0.1:{port}"),
            }

        await world.running(artifact=artifact("1.0"))
        async with Load(box.port) as load, Watch(box, "the artifacts' certificate has ended") as watch:
            await front.show(-1)
            await world.deploy("2.0", push=True, artifact=artifact("2.0"))
            app = await box.app_is(last_failure__reason="CertificateRefused", run=None)
            assert "expired" in app["last_failure"]["message"]
            assert condition(app, "Quarantined")["status"] != "True"
            assert watch.versions == {"1.0"}
            await front.show(20)
            await box.proven("2.0")
        assert load.failures == []
        await box.stop()
