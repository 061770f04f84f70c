"""Wishes: who may have them, what they say, how they are answered."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from agent.domain.events import SyncFinished
from agent.domain.model import SyncResult
from agent.web import control as control_module
from agent.web import server
from tests.kit.faces import RecordingControl, hall
from tests.kit.scenes import PROBE_FAILED

WISHES = ("/sync", "/rollback?app=web", "/retry", "/promote?app=web", "/abort?app=web", "/pause", "/resume")
PRIVILEGED_READS = ("/plan", "/logs?app=web", "/logs.json", "/ps", "/doctor", "/store")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", WISHES)
async def test_the_socket_needs_no_token(path: str, tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        answer = await it.socket.post(path)
    assert answer.status == (200 if path == "/pause" else 202), answer.text
    assert it.control.wishes[0][1] == f"uid {os.getuid()}"


@pytest.mark.parametrize("path", WISHES)
async def test_without_a_token_file_tcp_takes_no_wishes_and_says_how(path: str, tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        answer = await it.admin.post(path, headers=bearer("anything"))
    assert answer.status == 403
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["reason"] == "ControlClosed"
    assert "--control-token-file" in answer.json["detail"]
    assert it.control.wishes == []


@pytest.mark.parametrize("path", PRIVILEGED_READS)
async def test_plans_and_logs_are_behind_the_same_door(path: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret-token")
    async with hall(tmp_path, token_file=file) as it:
        assert (await it.socket.get(path)).status == 200
        assert (await it.admin.get(path)).status == 401
        assert (await it.admin.ask("GET", path, headers=bearer("s3cret-token"))).status == 200


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({}, "TokenMissing"),
        ({"Authorization": "s3cret-token"}, "TokenMissing"),
        ({"Authorization": "Basic czNjcmV0LXRva2Vu"}, "TokenMissing"),
        (bearer(""), "TokenMissing"),
        (bearer("wrong"), "TokenWrong"),
        (bearer("s3cret-token2"), "TokenWrong"),
        (bearer("s3cret-tokeñ"), "TokenWrong"),
    ],
)
async def test_a_wrong_token_is_refused(header: dict[str, str], reason: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret-token\n")
    async with hall(tmp_path, token_file=file) as it:
        answer = await it.admin.post("/sync", headers=header)
    assert (answer.status, answer.json["reason"]) == (401, reason)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert it.control.wishes == []


async def test_the_token_is_read_again_on_each_use(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    async with hall(tmp_path, token_file=file) as it:
        assert (await it.admin.post("/sync", headers=bearer("first-token"))).status == 202
        file.write_text("second-token\n")
        assert (await it.admin.post("/sync", headers=bearer("first-token"))).status == 401
        assert (await it.admin.post("/sync", headers=bearer("second-token"))).status == 202
        file.write_text("")
        assert (await it.admin.post("/sync", headers=bearer(""))).status == 403
        file.unlink()
        gone = await it.admin.post("/sync", headers=bearer("second-token"))
    assert gone.status == 403
    assert "No such file" in gone.json["detail"]
    assert str(tmp_path) not in gone.json["detail"]
    assert it.control.wishes[0][1].startswith("the token's bearer at 127.")


async def test_a_wish_is_answered_with_its_sync_at_once(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        first = await it.socket.post("/sync")
        second = await it.socket.post("/sync?prune_all=true")
    assert (first.status, first.json) == (202, {"sync": "sync-1", "merged": False})
    assert second.json == {"sync": "sync-1", "merged": True}
    assert [wish[2] for wish in it.control.wishes] == [False, True]


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (SyncResult.SUCCEEDED, 200),
        (SyncResult.UNCHANGED, 200),
        (SyncResult.PROBATION, 202),
        (SyncResult.FAILED, 409),
        (SyncResult.ROLLED_BACK, 409),
        (SyncResult.SUPERSEDED, 409),
        (SyncResult.INTERRUPTED, 409),
    ],
)
async def test_waiting_gives_the_result_and_only_a_success_reads_as_one(
    result: SyncResult, status: int, tmp_path: Path
) -> None:
    failure = PROBE_FAILED if status == 409 else None
    control = RecordingControl(end=SyncFinished("sync-1", result, "c" * 40, failure, 1.25))
    async with hall(tmp_path, control=control) as it:
        answer = await it.socket.post("/sync?wait=1")
    assert answer.status == status
    assert answer.json["sync"] == "sync-1"
    assert answer.json["result"] == str(result)
    assert answer.json["seconds"] == 1.25
    if failure is not None:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json["failure"]["reason"] == "ProbeFailed"


async def test_waiting_ends_at_the_deadline_with_the_sync_still_running(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        answer = await it.socket.post("/rollback?app=web&wait=1")
    assert (answer.status, answer.json["result"]) == (202, "running")
    assert it.control.wishes[-1] == ("wait", "sync-1", control_module.WAIT_DEADLINE)


async def test_a_client_that_goes_away_cancels_its_waiting_and_not_its_wish(tmp_path: Path) -> None:
    control = RecordingControl(slow=asyncio.Event())
    assert control.slow is not None
    async with hall(tmp_path, control=control) as it:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await it.socket.post("/rollback?app=web&wait=1")
        assert (await it.socket.get("/healthz")).status == 200  # by now the agent knows that it is gone
        assert control.wishes == [("begun",)]
        control.slow.set()
        async with asyncio.timeout(5):
            await control.carried_out.wait()
    assert ("wait", "sync-1", control_module.WAIT_DEADLINE) not in control.wishes


async def test_arguments_come_as_json_or_in_the_query(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        await it.socket.post("/rollback", json={"app": "web", "to": "1.3.0"})
        await it.socket.post("/rollback?app=web&to=1.3.0")
        await it.socket.post("/rollback?app=other", json={"app": "web"})
        await it.socket.post("/retry", json={})
        await it.socket.post("/pause", json={"message": "weekend"})
        await it.socket.post("/sync", json={"prune_all": True})
    by = f"uid {os.getuid()}"
    assert it.control.wishes == [
        ("rollback", by, "web", "1.3.0"),
        ("rollback", by, "web", "1.3.0"),
        ("rollback", by, "web", ""),
        ("retry", by, ""),
        ("pause", by, "weekend"),
        ("sync", by, True),
    ]


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/rollback", {}, 400),
        ("/rollback", {"json": {"app": 7}}, 400),
        ("/rollback", {"json": ["web"]}, 400),
        ("/rollback", {"json": {"app": "web", "too": "1.3.0"}}, 400),
        ("/sync?prunee_all=1", {}, 400),
        ("/sync", {"json": {"prune_all": "perhaps"}}, 400),
        ("/sync", {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ("/sync", {"data": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, 400),
        ("/sync", {"data": b"[" * 60_000, "headers": {"Content-Type": "application/json"}}, 400),
        ("/sync", {"data": b'{"a":' * 10_000, "headers": {"Content-Type": "application/json"}}, 400),
        ("/sync", {"data": {"prune_all": "1"}}, 415),
        ("/sync", {"data": b"x" * 70_000, "headers": {"Content-Type": "application/json"}}, 413),
        ("/pause", {"json": {"message": "x" * 1001}}, 400),
        ("/rollback", {"json": {"app": "nope"}}, 404),
        ("/rollback", {"json": {"app": "web", "to": "9.9.9"}}, 409),
    ],
)
async def test_unclear_wishes_are_refused_as_problems(
    path: str, options: dict[str, Any], status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with hall(tmp_path) as it:
        answer = await it.socket.post(path, **options)
        assert (await it.socket.get("/healthz")).status == 200
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["detail"]
    assert it.control.wishes == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_body_that_never_comes_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "BODY_DEADLINE", 0.05)
    monkeypatch.setattr(server, "LINGER", 0.05)
    async with hall(tmp_path) as it:
        reader, writer = await asyncio.open_unix_connection(it.settings.socket)
        writer.write(
            b"POST /sync HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n")
            await reader.read()
        writer.close()
        await writer.wait_closed()
    assert b"408" in head


async def test_the_store_is_looked_after_through_the_same_door(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        answer = await it.socket.post("/store/verify?release=r1")
        assert (answer.status, answer.json) == (200, {"release": "r1", "verdict": "ok"})
        answer = await it.socket.post("/store/verify", json={"release": "r2", "repair": True})
        assert answer.json["verdict"] == "ok"
        assert (await it.socket.post("/store/verify?release=r3")).status == 409
        assert (await it.socket.post("/store/verify")).status == 400
        assert (await it.socket.post("/store/gc?dry_run=true")).json["dry_run"] is True
        assert (await it.admin.post("/store/gc")).status == 403
    wishes = [("verify", "r1", False), ("verify", "r2", True), ("verify", "r3", False), ("gc", True)]
    assert it.control.wishes == wishes
