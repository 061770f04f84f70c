"""Artifacts by other ways than a file, through the whole agent."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

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
