"""What each listener serves, and how listeners come and go."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

from agent.config import Address, Settings
from agent.domain.errors import OperatorNeeded, Transient
from agent.web import listeners
from agent.web.server import Face
from tests.kit.faces import LOOPBACK, RecordingControl, hall
from tests.kit.scenes import Stage

READS = (
    "/",
    "/status",
    "/history",
    "/metrics",
    "/healthz",
    "/readyz",
    "/maintenance",
    "/plan",
    "/logs",
    "/ps",
    "/doctor",
    "/store",
)


def face(folder: Path, admin: Address = LOOPBACK, path: Path | None = None) -> Face:
    stage = Stage()
    settings = Settings(data=folder, admin=admin, socket=path or folder / "agent.sock")
    return Face(settings, stage.board, stage.metrics, RecordingControl())


async def test_the_webhook_listener_serves_deliveries_and_nothing_else(tmp_path: Path) -> None:
    async with hall(tmp_path, second=True) as it:
        assert it.webhook is not None
        assert (await it.webhook.post("/webhook", data=b"12345")).text == "5 bytes"
        for path in (*READS, "/events"):
            assert (await it.webhook.get(path)).status == 404, path
        for path in ("/sync", "/pause", "/nothing"):
            assert (await it.webhook.post(path)).status == 404, path
        refused = await it.webhook.get("/webhook")
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")
    assert refused.headers["Content-Type"] == "application/problem+json"


async def test_a_delivery_whose_head_never_ends_is_cut_off_soon_on_its_own_listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.web.server.WEBHOOK_KEEPALIVE", 0.3)
    async with hall(tmp_path, second=True) as it:
        at = it.face.addresses.webhook
        assert at is not None
        reader, writer = await asyncio.open_connection(at.host, at.port)
        writer.write(b"POST /webhook HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        async with asyncio.timeout(30):
            await reader.read()  # until the other end closes
        writer.close()


async def test_deliveries_are_taken_on_the_admin_listener_too(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        assert it.webhook is None
        answer = await it.admin.post("/webhook", data=io.BytesIO(b"x" * 3_000_000))
        assert answer.text == "3000000 bytes"


async def test_without_a_receiver_there_is_no_webhook(tmp_path: Path) -> None:
    async with face(tmp_path) as it, aiohttp.ClientSession() as session:
        async with session.post(f"http://{it.addresses.admin}/webhook") as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nothing", 404, "NotFound"),
        ("GET", "/../../etc/passwd", 404, "NotFound"),
        ("GET", "/sync", 405, "MethodNotAllowed"),
        ("POST", "/status", 405, "MethodNotAllowed"),
        ("DELETE", "/", 405, "MethodNotAllowed"),
        ("GET", "/history?limit=0", 400, "QueryInvalid"),
        ("GET", "/history?limit=501", 400, "QueryInvalid"),
        ("GET", "/history?limit=-1", 400, "QueryInvalid"),
        ("GET", "/history?limit=²", 400, "QueryInvalid"),
        ("GET", "/history?app=" + "x" * 201, 400, "QueryInvalid"),
        ("GET", "/logs?lines=0", 400, "QueryInvalid"),
        ("GET", "/logs?app=nope&follow=1", 404, "UnknownApp"),
        ("GET", "/logs?app=nope", 404, "UnknownApp"),
        ("GET", "/maintenance?app=nope", 404, "UnknownApp"),
    ],
)
async def test_errors_are_problems(method: str, path: str, status: int, reason: str, tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        answer = await it.socket.ask(method, path)
    assert (answer.status, answer.json["reason"]) == (status, reason)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["title"]


async def test_what_nobody_expected_is_told_without_its_inside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    control = RecordingControl(error=RuntimeError("inside"))
    async with hall(tmp_path, control=control) as it:
        answer = await it.socket.post("/sync")
    assert answer.status == 500
    assert "inside" not in answer.text
    assert "RuntimeError: inside" in caplog.text


async def test_an_expected_failure_keeps_its_reason_and_its_consequence(tmp_path: Path) -> None:
    control = RecordingControl(error=Transient("GitUnavailable", "at https://a:b@host", retry_after=7.0))
    async with hall(tmp_path, control=control) as it:
        answer = await it.socket.get("/plan?ref=next")
    assert (answer.status, answer.json["reason"]) == (503, "GitUnavailable")
    assert answer.headers["Retry-After"] == "7"
    assert "a:b" not in answer.text


async def test_every_answer_carries_the_safe_headers(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        for path in (*READS, "/nothing"):
            answer = await it.admin.get(path)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Server"] == "emptybox"


async def test_history_is_asked_for_and_masked(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        answer = await it.admin.get("/history?app=web&limit=5")
    assert it.control.wishes == [("history", "web", 5)]
    assert answer.json["runs"][0]["failure"]["message"] == "at https://***@host/x"


@pytest.mark.parametrize("path", ["/status", "/history", "/plan", "/ps", "/doctor", "/logs", "/store"])
async def test_what_is_told_comes_for_people_and_for_programs(path: str, tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        by_name = await it.socket.get(f"{path}.txt", "application/json")
        by_header = await it.socket.get(path, "text/plain")
        for_programs = await it.socket.get(f"{path}.json", "text/plain")
    assert by_name.headers["Content-Type"] == by_header.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert by_name.text
    assert "bob:pw" not in by_name.text
    assert by_name.text.isascii()
    assert by_name.text.replace("\n", "").isprintable()
    assert isinstance(for_programs.json, dict)


async def test_logs_come_as_lines_or_as_json(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        text = await it.socket.get("/logs?app=web&lines=1")
        json = await it.socket.get("/logs?app=web", "application/json")
        timed = await it.socket.get("/logs?times=1")
        named = await it.socket.get("/logs.json?app=web&lines=1")
    at = "2026-11-21T07:38:18.123Z"
    assert text.text == "web/check | line 2\n"
    assert timed.text == f"{at} web | line 1 \\x1b[31mred\n{at} web/check | line 2\n"
    last = {"app": "web", "at": at, "source": "web/check", "pid": 8, "text": "line 2"}
    assert json.json["lines"][1:] == named.json["lines"] == [last]


async def test_the_socket_is_its_owners_alone_and_goes_with_the_face(tmp_path: Path) -> None:
    async with face(tmp_path) as it:
        path = it.addresses.socket
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [p.name for p in tmp_path.iterdir()] == ["agent.sock"]
    assert list(tmp_path.iterdir()) == []


async def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    before = path.stat().st_ino
    async with face(tmp_path) as it:
        assert it.addresses.socket == path
        assert path.stat().st_ino != before


async def test_a_socket_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    async with face(tmp_path):
        with pytest.raises(OperatorNeeded) as refused:
            await face(tmp_path).start()
        assert refused.value.reason == "SocketUnusable"
        assert "another agent" in str(refused.value)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "agent.sock")
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.read()
        writer.close()
        await writer.wait_closed()


async def test_a_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "agent.sock").write_text("precious")
    with pytest.raises(OperatorNeeded) as refused:
        await face(tmp_path).start()
    assert refused.value.info.remedy
    assert (tmp_path / "agent.sock").read_text() == "precious"


async def test_a_socket_that_another_agent_put_in_place_is_not_removed(tmp_path: Path) -> None:
    first = face(tmp_path)
    await first.start()
    (tmp_path / "agent.sock").unlink()
    async with face(tmp_path):
        await first.aclose()
        assert (tmp_path / "agent.sock").is_socket()


async def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30) / "agent.sock"
    async with face(tmp_path, path=path):
        directory = os.open(path.parent, os.O_PATH)
        try:
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/agent.sock")
            writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert b"200 OK" in await reader.read()
            writer.close()
            await writer.wait_closed()
        finally:
            os.close(directory)
    assert not path.exists()


async def test_a_port_in_use_is_the_operators_matter_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with face(tmp_path / "a") as first:
        taken = first.addresses.admin
        with pytest.raises(OperatorNeeded) as refused:
            await face(tmp_path / "b", admin=taken).start()
    assert refused.value.reason == "PortTaken"
    assert refused.value.info.where == str(taken)
    assert list((tmp_path / "b").iterdir()) == []


async def test_more_connections_than_there_may_be_are_closed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "CONNECTIONS_MAX", 3)
    async with face(tmp_path) as it:
        at = it.addresses.admin
        streams = [await asyncio.open_connection(at.host, at.port) for _ in range(6)]
        for _, writer in streams:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        answers = []
        for reader, _ in streams:
            try:
                async with asyncio.timeout(5):
                    answers.append(await reader.read(15))
            except ConnectionResetError:
                answers.append(b"")
        for _, writer in streams:
            writer.close()
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.count(b"") == 3


async def test_the_end_waits_for_answers_under_way_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.web.server.GRACE", 0.05)
    control = RecordingControl(ended=asyncio.Event())
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        async with hall(tmp_path, control=control) as it:

            async def ask() -> None:
                with pytest.raises(aiohttp.ClientError):
                    await it.socket.post("/sync?wait=1")

            group.create_task(ask())
            while len(control.wishes) < 2:
                await asyncio.sleep(0.005)
            await it.face.aclose()
