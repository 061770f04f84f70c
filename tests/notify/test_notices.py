"""Notices for people: what is told, once, and when it is over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.config import Settings
from agent.domain import events as facts
from agent.domain import job_events
from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.job import Cause, JobResult, JobRun
from agent.domain.model import SyncResult
from agent.notify.channels import chats
from tests.kit.api_server import ApiServer, api_server
from tests.notify.parts import CHECKSUM, PROBE, A, B, Stand, stand


def notices(server: ApiServer, tmp_path: Path, **more: str) -> Path:
    (tmp_path / "url").write_text(f"{server.url}/services/T0/B0/secret-hook\n")
    lines = [f"  {key}: {value}" for key, value in {"url_file": str(tmp_path / "url"), **more}.items()]
    file = tmp_path / "notices.yaml"
    file.write_text("\n".join(["ops:", *lines]) + "\n")
    return file


async def until_sent(world: Stand) -> None:
    async with asyncio.timeout(30):
        while world.journal.outbox.waiting():
            await world.journal.outbox.changed(1.0)


async def test_a_failure_is_told_once_and_so_is_the_recovery(tmp_path: Path) -> None:
    async with api_server() as server:
        async with stand(tmp_path, notices=notices(server, tmp_path)) as world:
            world.begin("s0", A, "1.3.0")
            world.succeed("s0", A, "1.3.0")  # nobody wants to hear of it
            for sync in ("s1", "s2", "s3"):
                world.begin(sync, A, "1.4.0")
                world.fail(sync, A, CHECKSUM, "verify")
                await until_sent(world)
            for sync in ("s4", "s5"):
                world.begin(sync, B, "1.5.0")
                world.succeed(sync, B, "1.5.0")
                await until_sent(world)
    told = [got.content for got in server.got]
    assert [(t["kind"], t["app"], t["version"]) for t in told] == [
        ("failed", "web", "1.4.0"),
        ("recovered", "web", "1.5.0"),
    ]
    assert (told[0]["step"], told[0]["reason"], told[0]["serving"]) == ("verify", "ChecksumMismatch", "1.3.0")
    assert (told[0]["host"], told[0]["labels"]["env"], told[0]["commit"]) == ("box-1", "prod", A)
    assert "1.3.0 serves" in told[0]["text"]


async def test_the_recovery_is_told_also_by_the_next_life_of_the_agent(tmp_path: Path) -> None:
    async with api_server() as server:
        file = notices(server, tmp_path)
        async with stand(tmp_path, notices=file) as world:
            world.begin("s1", A, "1.4.0")
            world.roll_back("s1", A, PROBE, to="1.3.0")
            await until_sent(world)
        async with stand(tmp_path, notices=file) as world:
            world.begin("s2", B, "1.5.0")
            world.succeed("s2", B, "1.5.0")
            await until_sent(world)
    assert [got.content["kind"] for got in server.got] == ["rolled-back", "recovered"]


async def test_who_asks_for_it_hears_of_each_deployment_once(tmp_path: Path) -> None:
    async with api_server() as server:
        file = notices(server, tmp_path, on="[deployed, failed, recovered, paused, resumed]")
        async with stand(tmp_path, notices=file) as world:
            for sync, version in (("s1", "1.0"), ("s2", "1.1")):
                world.begin(sync, A, version)
                world.succeed(sync, A, version)
                await until_sent(world)
            world.begin("s3", A, "1.2")
            world.fail("s3", A, CHECKSUM, "verify")
            await until_sent(world)
            world.begin("s4", A, "1.3")
            world.succeed("s4", A, "1.3")
            await until_sent(world)
            world.play(facts.PauseChanged("release freeze", "ada"))
            await until_sent(world)
            world.play(facts.PauseChanged(None, "ada"))
            await until_sent(world)
    told = [(got.content["kind"], got.content["version"]) for got in server.got]
    assert told == [
        ("deployed", "1.0"),
        ("deployed", "1.1"),
        ("failed", "1.2"),
        ("recovered", "1.3"),
        ("paused", ""),
        ("resumed", ""),
    ]
    assert server.got[4].content["message"] == "release freeze (ada)"


async def test_slack_gets_its_shape_with_its_three_characters_escaped(tmp_path: Path) -> None:
    async with api_server() as server:
        template = "'{{ host }}: {{ app }} {{ kind }}: {{ message }} ({{ labels.env }})'"
        file = notices(server, tmp_path, kind="slack", template=template)
        async with stand(tmp_path, notices=file) as world:
            world.begin("s1", A, "1.4.0")
            why = FailureInfo(FailureKind.PERMANENT, "CheckFailed", "<!channel> a & b")
            world.fail("s1", A, why, "check")
            await until_sent(world)
    assert server.got[0].path == "/services/T0/B0/secret-hook"
    assert server.got[0].content == {"text": "box-1: web failed: &lt;!channel&gt; a &amp; b (prod)"}


async def test_a_state_with_mistakes_is_told_and_so_is_its_correction(tmp_path: Path) -> None:
    invalid = FailureInfo(FailureKind.PERMANENT, "StateInvalid", "state.yaml:3:1 vras: unknown key")
    away = FailureInfo(FailureKind.TRANSIENT, "GitUnavailable", "no answer")
    async with api_server() as server:
        async with stand(tmp_path, notices=notices(server, tmp_path)) as world:
            world.play(facts.SyncFinished("s0", SyncResult.FAILED, "", away))  # passes by itself
            world.play(facts.SyncFinished("s1", SyncResult.FAILED, A, invalid))
            await until_sent(world)
            world.play(facts.SyncResolved("s2", B))
            await until_sent(world)
    assert [(g.content["kind"], g.content["app"]) for g in server.got] == [("failed", ""), ("recovered", "")]


async def test_a_chat_that_is_down_holds_up_no_other_and_its_url_is_never_told(tmp_path: Path) -> None:
    async with api_server() as server:
        file = notices(server, tmp_path)
        (tmp_path / "dead").write_text("http://127.0.0.1:9/hooks/very-secret-path")
        file.write_text(file.read_text() + f"dead:\n  url_file: {tmp_path / 'dead'}\n")
        async with stand(tmp_path, first_rest=0.01, notices=file) as world:
            world.begin("s1", A, "1.4.0")
            world.fail("s1", A, CHECKSUM, "verify")
            await server.requests(1)
            async with asyncio.timeout(30):
                while not world.conditions:
                    await asyncio.sleep(0.01)
            assert world.conditions[0][0] == "False"
            assert world.conditions[0][1].startswith("dead: ")
            assert "very-secret" not in str(world.told)
            while [letter.channel for letter in world.journal.outbox.waiting()] != ["dead"]:
                await world.journal.outbox.changed(30.0)


def test_every_mistake_of_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notices.yaml"
    file.write_text(
        "a: {kind: irc, url: 'x'}\nb: {url: 'https://x', url_file: y}\n"
        "c: {url: 'https://x', on: [nothing], colour: red}\nd: {url: 'https://x', template: '{{ nope }}'}\n"
        "commit-status: {url: 'https://x'}\ne: 1\n"
    )
    with pytest.raises(Failure) as caught:
        chats(Settings(notices=file))
    told = str(caught.value)
    for part in (
        "a: kind",
        "a: url",
        "b: give either",
        "c: on: nothing",
        "c: colour",
        "d: a template",
        "e: not",
    ):
        assert part in told, part
    assert "commit-status" in told


@pytest.mark.parametrize("content", [b"[1, 2]", b"a: [", b"\xff", b"x"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notices.yaml"
    file.write_bytes(content)
    with pytest.raises(Failure):
        chats(Settings(notices=file))


async def test_a_job_that_fails_is_told_once_and_once_more_when_it_succeeds(tmp_path: Path) -> None:
    failure = FailureInfo(FailureKind.PERMANENT, "JobFailed", "the job ended with exit code 7")
    bad = JobRun(
        id="j", app="report", cause=Cause.SCHEDULE, result=JobResult.FAILED, commit=A, failure=failure
    )
    good = JobRun(id="k", app="report", cause=Cause.SCHEDULE, result=JobResult.SUCCEEDED, commit=A)
    async with api_server() as server:
        async with stand(tmp_path, notices=notices(server, tmp_path)) as world:
            for run in (good, bad, bad, good, good):
                world.bus.publish(job_events.JobEnded("report", run, 1.0))
                await until_sent(world)
            world.bus.publish(job_events.JobEnded("report", bad, 0.0, earlier=True))
            await until_sent(world)
    told = [got.content for got in server.got]
    assert [(t["kind"], t["app"], t["reason"]) for t in told] == [
        ("failed", "report", "JobFailed"),
        ("recovered", "report", ""),
    ]
