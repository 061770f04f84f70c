"""POST /exec: who may ask, what is refused, and what goes over the wire."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from agent.domain.control import ExecEnd, NotPossible, UnknownApp
from agent.domain.errors import Permanent
from tests.kit.faces import hall

WISH: dict[str, Any] = {"app": "web", "command": ["cat", "-"], "timeout": 5}


async def test_without_the_socket_or_the_token_nothing_is_run(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        assert (await it.admin.post("/exec", json=WISH)).status == 403
        assert (await it.socket.get("/exec")).status == 405
        assert it.control.execs.asked == []


async def test_what_it_says_comes_a_line_each_and_its_end_last(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        execs = it.control.execs
        execs.said = [("out", b"\xff\n"), ("err", b"no")]
        execs.end = ExecEnd(None, 15, None, "", 0.5)
        answer = await it.socket.post("/exec", data=json.dumps(WISH))
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines[:2] == [{"out": base64.b64encode(b"\xff\n").decode()}, {"err": "bm8="}]
        assert (lines[2]["end"]["code"], lines[2]["end"]["signal"]) == (None, 15)
        ((app, by, command, timeout),) = execs.asked
        assert (app, command, timeout) == ("web", ("cat", "-"), 5.0)
        assert by.startswith("uid ")
        assert execs.read is None


async def test_what_follows_the_first_line_is_its_input(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        data = bytes(range(256)) * 1000
        body = json.dumps({**WISH, "input": True}).encode() + b"\n" + data
        assert (await it.socket.post("/exec", data=body)).status == 200
        assert it.control.execs.read == data


@pytest.mark.parametrize(
    ("wish", "error", "status"),
    [
        (WISH, UnknownApp("no app"), 404),
        (WISH, NotPossible("not allowed"), 409),
        (WISH, Permanent("CommandNotFound", "there is no such program"), 422),
        ({"app": "web", "command": []}, None, 400),
        ({"app": "web", "command": ["a\0b"]}, None, 400),
        ({**WISH, "timeout": 0}, None, 400),
        ({**WISH, "command": ["x" * 70_000]}, None, 413),
        ({**WISH, "user": "root"}, None, 400),
        ("cat", None, 400),
    ],
)
async def test_what_cannot_be_run_is_one_clear_problem(
    wish: Any, error: Exception | None, status: int, tmp_path: Path
) -> None:
    async with hall(tmp_path) as it:
        it.control.execs.error = error
        answer = await it.socket.post("/exec", data=json.dumps(wish))
        assert answer.status == status, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert len(it.control.execs.asked) == (error is not None)
