"""Artifacts by other ways than a file, through the whole agent."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

from tests.kit.artifact_server import ArtifactServer
from tests.kit.box import Box, archive
from tests.kit.git_server import Content, Executable


def unpacked(version: str) -> dict[str, Content]:
    """The sample server's files, as a repository has them."""
    with tarfile.open(fileobj=io.BytesIO(archive(version)), mode="r:gz") as tar:
        found = {member.name: tar.extractfile(member) for member in tar}
        return {f"dist/{name}": Executable(file.read()) for name, file in found.items() if file is not None}


async def test_a_directory_of_a_commit_is_deployed_and_the_next_one_overlaps(tmp_path: Path) -> None:
    async with Box(tmp_path / "box") as box:
        app = await box.forge.repository("app.git")
        for version in ("1.0", "2.0"):
            commit = await app.put(unpacked(version))
            artifact = {"url": f"git+{app.url}@{commit}//dist/web"}
            push = await box.commit(box.state(version, artifact=artifact))
            if version == "1.0":
                await box.start()
            else:
                await box.webhook(push)
            await box.proven(version)
        assert (await box.history())[0]["result"] == "succeeded"


TOKEN, OTHER = "the-right-token-of-tests", "another-token-of-tests"
ONLY = 'location /private/ {{ if ($http_x_token != "{}") {{ return 401; }} alias {}/; }}'


async def test_a_login_comes_from_a_secret_and_one_that_changes_touches_nothing(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "token").write_text(OTHER)
    data = archive("1.0")
    locations = ONLY.format(TOKEN, tmp_path / "artifacts")
    async with (
        Box(tmp_path / "box", settings={"--secret-root": str(secrets)}) as box,
        ArtifactServer(tmp_path, locations=locations) as server,
    ):
        server.put("web.tar.gz", data)
        artifact: dict[str, Any] = {
            "url": f"{server.url}/private/web.tar.gz",
            "headers": {"X-Token": "{{ secrets.TOKEN }}"},
            "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}",
            "strip": 1,
        }
        parts: dict[str, Any] = {"artifact": artifact, "secrets": {"TOKEN": {"file": "token"}}}
        await box.commit(box.state("1.0", **parts))
        await box.start()

        async def denied() -> bool:
            runs = await box.history()
            return bool(runs) and (runs[0].get("failure") or {}).get("reason") == "ArtifactDenied"

        await box.until(denied)
        (secrets / "token").write_text(TOKEN)
        app = await box.proven("1.0")
        asked = len(await server.requests(2))
        (secrets / "token").write_text(OTHER)
        artifact["mirrors"] = [f"{server.url}/elsewhere.tar.gz"]
        _, answer = await box.webhook(await box.commit(box.state("1.0", **parts)), wait=True)
        assert answer["result"] in ("probation", "succeeded")
        assert [step["name"] for step in (await box.history())[0]["steps"]] == ["record"]
        assert (await box.app())["child"]["pid"] == app["child"]["pid"]
        assert len(await server.requests(asked)) == asked
        shown = "\n".join(line for line in box.output if " | " not in line[:40])
        assert TOKEN not in shown
        assert OTHER not in shown
