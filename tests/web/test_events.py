"""Server-sent events over a real connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.domain import events as facts
from agent.kit.mask import secrets
from agent.status import feed
from agent.web import events as events_module
from tests.kit.faces import Client, hall
from tests.kit.scenes import Stage


@asynccontextmanager
async def stream(client: Client, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    async with client.session.get(client.base + "/events", headers=headers) as response:
        yield response


async def frame(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next frame's fields; data as JSON."""
    fields: dict[str, Any] = {}
    async with asyncio.timeout(5):
        while (line := (await response.content.readline()).decode().rstrip("\n")) != "":
            name, _, value = line.partition(": ")
            fields[name] = json.loads(value) if name == "data" else value
    return fields


async def test_facts_arrive_as_they_happen(tmp_path: Path) -> None:
    async with hall(tmp_path) as it, stream(it.admin) as response:
        assert response.content_type == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        assert await frame(response) == {"retry": str(events_module.RETRY)}
        it.stage.tell(facts.PauseChanged("weekend", "uid 0"))
        told = await frame(response)
    assert told["data"]["fact"] == "PauseChanged"
    assert told["data"]["message"] == "weekend"
    assert told["id"].endswith("-1")


async def test_a_client_that_comes_back_gets_what_it_missed(tmp_path: Path) -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    async with hall(tmp_path, stage=stage) as it:
        last = list(stage.board.feed._ring)[-3].id
        async with stream(it.socket, **{"Last-Event-ID": last}) as response:
            await frame(response)
            names = [(await frame(response))["data"]["fact"] for _ in range(2)]
    assert names == ["AppStateChanged", "SyncFinished"]


async def test_a_quiet_stream_is_kept_open_by_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "HEARTBEAT", 0.02)
    async with hall(tmp_path) as it, stream(it.admin) as response:
        await frame(response)
        assert await frame(response) == {":": ""}
        it.stage.tell(facts.PauseChanged("x"))
        while "data" not in (told := await frame(response)):
            pass
    assert told["data"]["message"] == "x"


async def test_registered_secrets_do_not_reach_a_listener(tmp_path: Path) -> None:
    secrets.add("hunter2-events-test")
    async with hall(tmp_path) as it, stream(it.admin) as response:
        await frame(response)
        it.stage.tell(facts.PauseChanged("say hunter2-events-test"))
        assert (await frame(response))["data"]["message"] == "say ***"


async def test_one_listener_too_many_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LISTENERS_MAX", 1)
    async with hall(tmp_path) as it:
        async with stream(it.admin) as response:
            await frame(response)
            refused = await it.admin.get("/events")
            assert refused.status == 503
            assert refused.json["reason"] == "TooManyListeners"
            assert refused.headers["Retry-After"] == "10"
        async with asyncio.timeout(5):
            while it.stage.board.feed.listeners:
                await asyncio.sleep(0.005)
        async with stream(it.admin) as response:
            assert response.status == 200


async def test_streams_end_when_the_face_ends(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with hall(tmp_path) as it:
            response = await session.get(it.admin.base + "/events")
            await frame(response)
        async with asyncio.timeout(5):
            assert await response.read() == b""
        response.close()
