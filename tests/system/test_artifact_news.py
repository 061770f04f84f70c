"""News of an artifact, through the whole agent: what was set aside for want of it is tried again."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp

from tests.kit.box import SECRET, Box


async def harbor(box: Box, repository: str) -> tuple[int, dict[str, object]]:
    """Harbor's news of a push to a repository."""
    news = {
        "type": "PUSH_ARTIFACT",
        "event_data": {"resources": [{"tag": "2.0"}], "repository": {"repo_full_name": repository}},
    }
    headers = {"Authorization": SECRET.decode(), "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session:
        async with session.post(box.url("/webhook"), data=json.dumps(news), headers=headers) as answer:
            return answer.status, await answer.json()


async def test_a_version_whose_artifact_was_missing_is_deployed_when_it_is_published(
    tmp_path: Path,
) -> None:
    async with Box(tmp_path / "box") as box:
        await box.deploy("1.0")
        await box.start()
        await box.proven("1.0")
        state = box.state("2.0")
        file = box.artifacts / "web-2.0-good.tar.gz"
        published = file.read_bytes()
        file.unlink()
        commit = await box.commit(state)
        status, answer = await box.webhook(commit, wait=True)
        assert (status, answer["failure"]["reason"]) == (409, "ArtifactNotFound")
        file.write_bytes(published)
        status, answer = await harbor(box, "acme/other")
        assert (status, answer["verdict"]) == (200, "ignored")
        status, answer = await harbor(box, "box/artifacts")  # the last of the path in its URL
        assert (status, answer["verdict"]) == (202, "accepted")
        await box.proven("2.0")
        assert (await box.history())[0]["triggers"] == ["artifact"]
