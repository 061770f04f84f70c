"""Jobs: what runs to its end, when its time comes, after a release, when asked, over crashes and updates."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from tests.kit.box import Box
from tests.kit.operator import Operator, run

EVERY_SECOND = "* * * * * *"


def state(script: str, *, version: str = "1.0", app: str = "report", **job: Any) -> dict[str, Any]:
    """A state with one job, a line of the shell."""
    parts = {"command": ["sh", "-c", script], "stop": {"grace": "1s"}, **job}
    return {"schema": 1, "apps": {app: {"version": version, "job": parts}}}


async def ask(box: Box, method: str, path: str) -> Any:
    """What the agent answers on its Unix socket."""
    connector = aiohttp.UnixConnector(str(box.data / "agent.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.request(method, f"http://agent{path}") as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json()


async def runs(box: Box, app: str = "report") -> list[dict[str, Any]]:
    """The rows of a job, newest first."""
    found: list[dict[str, Any]] = (await ask(box, "GET", f"/jobs?app={app}&limit=500"))["jobs"]
    return found


async def begin(box: Box) -> None:
    """A run, asked for by an operator."""
    await ask(box, "POST", "/job/run?app=report")


async def sync(box: Box, how: str = "wait=1") -> None:
    """A look at the state, and the end of it."""
    await ask(box, "POST", f"/sync?{how}")


async def ready(box: Box, version: str = "1.0", app: str = "report") -> dict[str, Any]:
    """Until this version of the job is released."""

    async def there() -> dict[str, Any] | None:
        found = await box.app(app)
        good = (found.get("good") or {}).get("version") == version
        return found if good and found["state"] in ("ready", "working") else None

    found: dict[str, Any] = await box.until(there)
    return found


async def under_way(box: Box) -> dict[str, Any]:
    """Until a run of the job has begun: as status tells it."""

    async def begun() -> Any:
        try:
            job = (await box.app("report")).get("job") or {}
        except aiohttp.ClientError:  # the agent is being started again
            return None
        return (job.get("running") or [None])[0]

    found: dict[str, Any] = await box.until(begun)
    return found


async def test_once_runs_the_job_says_what_it_says_and_exits_with_its_code(box: Box) -> None:
    await box.commit(state("echo out; echo err >&2; exit 7"))
    told = await run(*box.command("once")[4:])
    assert told.code == 7
    assert sorted(told.out.splitlines()) == ["err", "out"]
    assert "JobFailed" in told.err

    await box.commit(state("echo fine"))
    told = await run(*box.command("once")[4:])
    assert (told.code, told.out) == (0, "fine\n")

    await box.commit(state("kill -9 $$"))
    assert (await run(*box.command("once")[4:])).code == 128 + 9


async def test_once_can_look_after_one_app_alone_and_give_its_job_parameters(box: Box) -> None:
    wanted = state('echo "for $DAY"', parameters={"DAY": "today"})
    wanted["apps"]["other"] = {"version": "1", "job": {"command": ["echo", "never"]}}
    await box.commit(wanted)
    told = await run(*box.command("once")[4:], "--app", "report", "--set", "DAY=monday")
    assert (told.code, told.out) == (0, "for monday\n")
    told = await run(*box.command("once")[4:], "--app=nobody")
    assert (told.code, "AppUnknown" in told.err) == (1, True)
    told = await run(*box.command("once")[4:], "--app", "report", "--set", "NIGHT=x")
    assert (told.code, "no parameter 'NIGHT'" in told.err) == (1, True)


async def test_a_schedule_runs_the_job_one_at_a_time_and_status_history_and_metrics_tell(box: Box) -> None:
    await box.commit(state("echo said; sleep 1.2", schedule=EVERY_SECOND, time_zone="Europe/Berlin"))
    await box.start()
    await ready(box)

    async def twice() -> bool:
        results = Counter(row["result"] for row in await runs(box))
        return results["succeeded"] >= 2 and results["skipped"] >= 1

    await box.until(twice)
    job = (await box.app("report"))["job"]
    assert (job["schedule"], job["time_zone"]) == (EVERY_SECOND, "Europe/Berlin")
    assert job["next"]
    assert job["last"]["result"] == "succeeded"
    row = next(row for row in await runs(box) if row["result"] == "succeeded")
    assert (row["cause"], row["code"], row["output"], row["version"]) == ("schedule", 0, ["said"], "1.0")
    metrics = await box.metrics()
    assert 'emptybox_job_runs_total{app="report",result="succeeded"}' in metrics
    assert 'emptybox_job_last_run_succeeded{app="report"} 1.0' in metrics
    assert job["skipped"] >= 1
    assert len(job["running"]) <= 1
    dues = [row["due"] for row in await runs(box) if row["cause"] == "schedule"]
    assert len(dues) == len(set(dues))


async def test_a_run_is_begun_by_hand_with_declared_parameters_and_one_at_a_time(box: Box) -> None:
    flag = box.directory / "go"
    script = f'echo "$WORD"; until [ -e {flag} ]; do sleep 0.05; done; exit "$CODE"'
    await box.commit(state(script, parameters={"WORD": "hello", "CODE": 0}))
    await box.start()
    await ready(box)
    operator = Operator(box)
    begun = await operator("job", "run", "report", "CODE=3", "--no-wait", "--json")
    assert begun.code == 0
    await box.app_is("report", state="working")
    told = await operator("job", "run", "report")
    assert (told.code, "overlap is not allowed" in told.err) == (4, True)
    flag.touch()
    await box.app_is("report", state="ready")
    told = await operator("job", "run", "report", "WORD=monday", "CODE=5")
    assert (told.code, told.out) == (5, "monday\n")
    assert "exit code 5" in told.err
    told = await operator("job", "run", "report", "HOW=x")
    assert (told.code, "no parameter 'HOW'" in told.err) == (4, True)
    rows = await runs(box)
    assert [(row["result"], row["code"], row["cause"]) for row in rows] == [
        ("failed", code, "operator") for code in (5, 3)
    ]
    app = await box.app("report")
    assert "JobFailing" in {c["type"] for c in app["conditions"] if c["status"] == "True"}
    assert app["last_failure"]["reason"] == "JobFailed"
    assert (await operator("job", "run", "report")).code == 0


async def test_a_run_that_fails_is_tried_again_and_one_that_lasts_too_long_is_stopped(box: Box) -> None:
    count = box.directory / "count"
    script = f'echo "attempt $EMPTYBOX_ATTEMPT"; echo x >> {count}; [ "$(wc -l < {count})" -ge 3 ]'
    await box.commit(state(script, retries=2, backoff="50ms"))
    await box.start()
    await ready(box)
    told = await Operator(box)("job", "run", "report")
    assert (told.code, told.out) == (0, "attempt 3\n")
    row = (await runs(box))[0]
    assert (row["attempt"], row["result"]) == (3, "succeeded")

    await box.commit(state("echo begun; sleep 600", version="2.0", timeout="300ms"))
    await sync(box)
    await ready(box, "2.0")
    told = await Operator(box)("job", "run", "report")
    assert told.code == 128 + signal.SIGTERM
    row = (await runs(box))[0]
    assert (row["failure"]["reason"], row["output"]) == ("DeadlineExceeded", ["begun"])


async def test_a_release_waits_for_the_run_under_way_and_then_runs_once(box: Box) -> None:
    flag = box.directory / "go"
    await box.commit(state(f"until [ -e {flag} ]; do sleep 0.05; done; echo one"))
    await box.start()
    await ready(box)
    operator = Operator(box)
    await begin(box)
    await box.app_is("report", state="working")
    await box.commit(state("echo two", version="2.0", after_release=True))
    await sync(box, "")
    await box.app_is("report", run__phase="rest")
    told = await operator("job", "run", "report")
    assert (told.code, "an update of report is under way" in told.err) == (4, True)
    flag.touch()
    await ready(box, "2.0")

    async def both() -> bool:
        return [row["result"] for row in await runs(box)] == ["succeeded", "succeeded"]

    await box.until(both)
    second, first = await runs(box)
    assert (first["version"], first["output"]) == ("1.0", ["one"])
    assert (second["version"], second["cause"], second["output"]) == ("2.0", "release", ["two"])
    await sync(box)
    assert len(await runs(box)) == 2


async def test_a_run_under_way_survives_the_agent_and_its_exit_code_is_recorded(box: Box) -> None:
    flag = box.directory / "go"
    await box.commit(state(f"echo begun; until [ -e {flag} ]; do sleep 0.05; done; echo done; exit 9"))
    await box.start()
    await ready(box)
    await begin(box)
    running = await under_way(box)
    for how in ("upgraded", "killed while it goes on", "killed while it ends"):
        old = await box.agent_pid()
        if how == "upgraded":
            assert (await Operator(box)("upgrade")).code == 0
        else:
            os.kill(old, signal.SIGKILL)
        if how == "killed while it ends":
            flag.touch()

        async def another(old: int = old) -> bool:
            return await box.answers() and await box.agent_pid() != old

        await box.until(another)
        if how != "killed while it ends":
            assert (await under_way(box))["pid"] == running["pid"]
    await box.app_is("report", state="ready", job__last__code=9)
    (row,) = await runs(box)
    assert (row["id"], row["result"], row["code"]) == (running["id"], "failed", 9)
    assert (row["attempt"], row["output"]) == (1, ["begun", "done"])
    assert list((box.data / "apps/report/instances").iterdir()) == []


async def test_a_run_that_ended_with_its_keeper_is_told_as_interrupted_and_tried_again(box: Box) -> None:
    flag = box.directory / "go"
    script = f"until [ -e {flag} ]; do sleep 0.05; done; echo attempt $EMPTYBOX_ATTEMPT"
    await box.commit(state(script, retries=1, backoff="50ms"))
    await box.start()
    await ready(box)
    await begin(box)
    running = await under_way(box)
    await box.stop(signal.SIGKILL)
    await gone(running["pid"])
    flag.touch()
    await box.start()
    await box.app_is("report", state="ready", job__last__result="succeeded")
    (row,) = await runs(box)
    assert (row["id"], row["attempt"], row["output"]) == (running["id"], 2, ["attempt 2"])


async def test_a_run_is_stopped_with_the_agent_and_that_is_recorded(box: Box) -> None:
    await box.commit(state("trap 'echo asked; exit 0' TERM; echo begun; while :; do sleep 0.05; done"))
    await box.start()
    await ready(box)
    await begin(box)
    await under_way(box)
    await ask(box, "POST", "/job/stop?app=report")
    await box.app_is("report", state="ready")
    await begin(box)
    running = await under_way(box)
    assert await box.stop() == 0
    assert not Path(f"/proc/{running['pid']}").exists()
    await box.start()
    await ready(box)
    assert len(await runs(box)) == 2


async def gone(pid: int) -> None:
    """Until a process is gone."""
    async with asyncio.timeout(30):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.02)


async def test_a_job_that_leaves_the_state_is_stopped_keeps_its_history_and_may_come_back(box: Box) -> None:
    await box.commit(state("echo begun; sleep 600", after_release=True))
    await box.start()
    running = await under_way(box)
    await box.commit({"schema": 1, "apps": {}})
    await sync(box, "prune_all=true&wait=1")
    await gone(running["pid"])
    assert (await box.status())["apps"] == {}
    (row,) = await runs(box)
    assert (row["result"], row["failure"]["reason"], row["output"]) == ("stopped", "JobStopped", ["begun"])
    await box.commit(state("echo back", after_release=True, version="2.0"))
    await sync(box)

    async def back() -> bool:
        return [row["result"] for row in await runs(box)] == ["succeeded", "stopped"]

    await box.until(back)


async def test_a_server_becomes_a_job_and_a_server_again(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    await box.commit(state("echo report", app="web", version="2.0", after_release=True))
    await sync(box)
    await ready(box, "2.0", "web")

    async def ran() -> bool:
        return [row["result"] for row in await runs(box, "web")] == ["succeeded"]

    await box.until(ran)
    assert (await box.get())[0] == 0
    await box.deploy("3.0")
    await sync(box)
    await box.proven("3.0")
    assert await box.get() == (200, "3.0\n")
    await box.app_is("web", job=None)


async def test_who_needs_a_job_starts_once_its_run_after_the_release_has_succeeded(box: Box) -> None:
    flag, fails = box.directory / "go", box.directory / "fails"
    fails.touch()
    wanted = box.state("1.0", needs=["report"], health={"http": "/healthz", "probation": "100ms"})
    script = f"until [ -e {flag} ]; do sleep 0.05; done; [ ! -e {fails} ]"
    wanted["apps"] |= state(script, after_release=True)["apps"]
    await box.commit(wanted)
    await box.start()
    await under_way(box)
    await box.app_is("web", run__phase="needs")
    flag.touch()
    await box.app_is("report", state="ready", job__last__result="failed")
    assert (await box.get())[0] in (0, 503)
    fails.unlink()
    await begin(box)
    await box.serving("1.0")
    assert [row["result"] for row in await runs(box)] == ["succeeded", "failed"]
