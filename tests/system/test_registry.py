"""A legacy application as two layers of an image in a real registry, deployed by a whole box."""

from __future__ import annotations

from pathlib import Path

from agent.cli.demo import server as sample
from tests.kit.archives import Tar
from tests.kit.box import Box
from tests.kit.registry import Registry, layout


async def test_an_application_in_two_layers_is_deployed_and_a_moved_tag_is_shown(tmp_path: Path) -> None:
    program = Tar().file("opt/web/bin/web", Path(sample.__file__).read_bytes(), mode=0o755).end()
    (tmp_path / "r").mkdir()
    async with Registry(tmp_path / "r") as registry, Box(tmp_path / "box") as box:
        box.settings["--insecure-registry"] = registry.host
        digests = []
        for version in ("1.0", "2.0"):
            small = Tar().file("opt/web/bin/VERSION", f"{version} good\n".encode()).end()
            image = await layout(tmp_path, [program, small], version)
            digests.append(await registry.copy(image, "legacy/web:stable"))

        async def deploy(version: str, digest: str, *, push: bool = False) -> None:
            url = f"oci://{registry.host}/legacy/web:stable"
            await box.deploy(version, push=push, artifact={"url": url, "checksum": digest, "strip": 2})

        await deploy("1.0", digests[0])
        await box.start()
        await box.serving("1.0")
        moved = [c for c in (await box.app())["conditions"] if c["type"] == "TagMoved"]
        assert [c["status"] for c in moved] == ["True"]
        assert digests[1] in moved[0]["message"]
        before = len(registry.asked("GET", "/blobs/"))
        await deploy("2.0", digests[1], push=True)
        await box.serving("2.0")
        assert len(registry.asked("GET", "/blobs/")) == before + 1
        moved = [c for c in (await box.app())["conditions"] if c["type"] == "TagMoved"]
        assert [c["status"] for c in moved] in ([], ["False"])
