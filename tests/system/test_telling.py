"""The whole agent tells the forge and a chat; real HTTP servers stand for them, as no forge is here."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kit.api_server import ApiServer, api_server
from tests.kit.box import Box
from tests.kit.ports import free_port

TOKEN = "a-token-nobody-may-see"


def telling(box: Box, tmp_path: Path, forge: str, chat: str) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "notices.yaml").write_text(json.dumps({"ops": {"url": chat}}))
    box.settings |= {
        "--status-token-file": str(tmp_path / "token"),
        "--status-forge": "github",
        "--status-api": forge,
        "--notices": str(tmp_path / "notices.yaml"),
        "--label": "env=prod",
    }


def states(server: ApiServer, commit: str) -> list[str]:
    return [got.content["state"] for got in server.got if got.path.endswith(commit)]


async def test_the_forge_and_the_chat_hear_how_each_commit_fares(tmp_path: Path) -> None:
    async with api_server() as forge, api_server() as chat:
        async with Box(tmp_path / "box") as box:
            telling(box, tmp_path, forge.url, chat.url)
            first = await box.deploy("1.0")
            await box.start()
            await box.proven("1.0")
            second = await box.deploy("2.0", "never", push=True)
            await box.until(lambda: _has(forge, second, "failure"))
            third = await box.deploy("3.0", push=True)
            await box.proven("3.0")
            await box.until(lambda: _has(forge, third, "success"))
            assert states(forge, first)[-1] == "success"
            assert states(forge, second) == ["pending", "failure"]
            assert forge.got[0].headers["authorization"] == f"Bearer {TOKEN}"
            assert forge.got[0].content["context"] == "emptybox/env=prod"
            failed = next(got.content for got in forge.got if got.content["state"] == "failure")
            assert failed["description"].startswith("web: ")
            told = await chat.requests(2)
            assert [got.content["kind"] for got in told] == ["failed", "recovered"]
            assert TOKEN not in "\n".join(box.output)
            assert 'channel="commit-status",result="delivered"' in await box.metrics()


async def _has(server: ApiServer, commit: str, state: str) -> bool:
    return state in states(server, commit)


async def test_a_forge_and_a_chat_that_are_down_neither_fail_nor_delay_anything(tmp_path: Path) -> None:
    async with Box(tmp_path / "box") as box:
        dead = f"http://127.0.0.1:{free_port()}"
        telling(box, tmp_path, dead, dead)
        await box.deploy("1.0")
        await box.start()
        await box.proven("1.0")
        await box.deploy("2.0", push=True)
        await box.proven("2.0")
        conditions = (await box.status())["conditions"]
        [told] = [c for c in conditions if c["type"] == "NoticesDelivered"]
        assert (told["status"], told["reason"]) == ("False", "NoticeFailed")
        assert await box.stop() == 0


async def test_wrong_settings_of_notices_end_the_start_with_a_clear_word(tmp_path: Path) -> None:
    async with Box(tmp_path / "box") as box:
        telling(box, tmp_path, "http://127.0.0.1:1", "irc://x")
        await box.deploy("1.0")
        await box.start("once")
        assert await box.ended() == 2
        assert any("notices.yaml: ops: url" in line for line in box.output)
        box.process = None
