"""Name servers that fail: neither the repository nor an artifact is found; and a registry that fails."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from agent.cli.demo import server as sample
from tests.kit.archives import Tar
from tests.kit.box import Box, Load
from tests.kit.faulty import Faulty
from tests.kit.registry import Registry, layout
from tests.kit.unruly import Unruly
from tests.kit.watching import Watch, condition
from tests.kit.world import World

KNOWN = "127.0.0.1 git.test artifacts.test\n"
# The agent's own files of names and name servers; the one name server there is does not answer.
OWN = 'mount --bind "$0" /etc/hosts && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


@pytest.mark.root
async def test_names_that_are_not_found_for_a_while(box: Box, tmp_path: Path) -> None:
    apart = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    hosts, servers = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text(KNOWN)
    servers.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    box.wrapper = [*apart, "sh", "-c", OWN, str(hosts), str(servers)]
    address = urlsplit(box.repository.url)
    box.settings["--repo"] = f"http://git.test:{address.port}{address.path}"
    async with Unruly() as server:
        world = World(box, server)

        def artifact(version: str) -> dict[str, str]:
            plain = world.artifact(version)
            return {**plain, "url": plain["url"].replace("127.0.0.1", "artifacts.test")}

        await world.running(artifact=artifact("1.0"))
        async with Load(box.port) as load, Watch(box, "no name is found", gaps=True) as watch:
            hosts.write_text("")
            await world.kill_agent()  # the next one remembers no name

            async def named() -> bool:
                try:
                    told = condition(await box.status(), "SourceReachable")
                except aiohttp.ClientError:
                    return False
                return (told["status"], told["reason"]) == ("False", "GitUnavailable")

            await box.until(named)
            await world.deploy("2.0", push=True, artifact=artifact("2.0"))
            hosts.write_text(KNOWN.replace("artifacts.test", ""))

            async def tried_again() -> bool:
                run = (await box.app())["run"] or {"steps": []}
                return any(step["name"] == "fetch" and step["attempt"] > 1 for step in run["steps"])

            await box.until(tried_again)
            assert condition(await box.status(), "SourceReachable")["status"] == "True"
            assert watch.versions == {"1.0"}
            hosts.write_text(KNOWN)
            await box.proven("2.0")
        assert load.failures == []
        await box.stop()


async def test_a_registry_that_answers_500_for_a_while(tmp_path: Path) -> None:
    program = Tar().file("web/bin/web", Path(sample.__file__).read_bytes(), mode=0o755)
    (tmp_path / "r").mkdir()
    async with Registry(tmp_path / "r") as registry, Box(tmp_path / "box") as box:
        async with Faulty(int(registry.host.rpartition(":")[2])) as network:
            host = f"127.0.0.1:{network.port}"
            box.settings["--insecure-registry"] = host
            await box.deploy("1.0")
            await box.start()
            await box.proven("1.0")
            layer = program.file("web/bin/VERSION", b"2.0 good\n").end()
            digest = await registry.copy(await layout(tmp_path, [layer], "2.0"), "app/web:2.0")
            artifact = {"url": f"oci://{host}/app/web:2.0", "checksum": digest, "strip": 1}
            async with Load(box.port) as load, Watch(box, "the registry answers 500") as watch:
                await network.become("500")
                await box.deploy("2.0", push=True, artifact=artifact)

                async def tried_again() -> bool:
                    run = (await box.app())["run"] or {"steps": []}
                    return any(step["name"] == "fetch" and step["attempt"] > 1 for step in run["steps"])

                await box.until(tried_again)
                assert watch.versions == {"1.0"}
                await network.become("")
                await box.proven("2.0")
            assert load.failures == []
            assert condition(await box.app(), "Quarantined")["status"] != "True"
            await box.stop()
