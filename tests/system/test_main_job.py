"""The main job: a push becomes a running version, swapped without a loss, rolled back when bad."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.kit.box import Box, Load


async def test_an_empty_box_fills_itself_and_says_what_runs(box: Box) -> None:
    commit = await box.deploy("1.0")
    await box.start()
    await box.serving("1.0")
    app = await box.proven("1.0")
    assert app["current"]["commit"] == commit
    assert app["current"]["digest"].startswith("sha256:")
    assert app["current"]["since"]
    assert app["wanted"]["version"] == "1.0"
    assert app["run"] is None
    assert app["last_failure"] is None
    assert (await box.history())[0]["result"] == "succeeded"


async def test_a_signed_push_swaps_versions_under_load_and_loses_nothing(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        for version in ("2.0", "3.0"):
            await box.deploy(version, push=True)
            await box.serving(version)
            await box.proven(version)
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0", "3.0"}


async def test_waiting_for_a_push_answers_when_the_version_is_live(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    commit = await box.deploy("2.0")
    status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["result"], answer["commit"]) == (202, "probation", commit)
    assert await box.get() == (200, "2.0\n")


async def test_a_version_that_never_gets_healthy_gets_no_traffic_and_is_not_tried_again(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        commit = await box.deploy(
            "2.0", "never", health={"http": "/healthz", "interval": "50ms", "deadline": "500ms"}
        )
        status, answer = await box.webhook(commit, wait=True)
        assert (status, answer["result"]) == (409, "failed")
        assert answer["failure"]["reason"] == "ProbeFailed"
        app = await box.app_is(state="degraded", run=None)
        assert "500" in app["last_failure"]["message"]
        assert "error: the database pool is exhausted" in app["last_failure"]["log"]
        assert app["current"]["version"] == "1.0"
        status, answer = await box.webhook(commit, wait=True)
        assert (status, answer["result"]) == (409, "failed")
    assert load.failures == []
    assert set(load.answers) == {"1.0"}
    assert [run["result"] for run in await box.history()] == ["failed", "succeeded"]


async def test_a_version_that_sickens_on_probation_is_rolled_back_without_a_loss(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        health = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "20s"}
        await box.deploy("2.0", "sickens", push=True, health=health)
        await box.serving("2.0")
        await box.serving("1.0")
        app = await box.app_is(state="degraded", current__version="1.0", last_run__result="rolled-back")
    assert load.failures == []
    assert set(load.answers) == {"1.0", "2.0"}
    assert app["last_failure"]["reason"] == "ProbeFailed"
    assert "error: the database pool is exhausted" in app["last_failure"]["log"]
    assert (await box.history())[0]["result"] == "rolled-back"
    assert any(c["type"] == "Quarantined" and c["status"] == "True" for c in app["conditions"])
    healthy = [c["status"] for c in app["conditions"] if c["type"] == "Healthy"]
    assert healthy in ([], ["True"]), "the pair that serves again was never unhealthy"


async def test_a_version_that_crashes_on_probation_is_rolled_back(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    health = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "20s"}
    await box.deploy("2.0", "crashes", push=True, health=health)
    await box.serving("2.0")
    await box.serving("1.0")
    app = await box.app_is(state="degraded", current__version="1.0", last_run__result="rolled-back")
    assert app["last_failure"]["reason"] == "ChildExited"
    assert "fatal: out of cheese" in app["last_failure"]["log"]


async def test_going_back_to_a_version_downloads_nothing(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    first = (await box.proven("1.0"))["current"]
    await box.deploy("2.0", push=True)
    await box.proven("2.0")
    state = box.state("1.0")
    for path in box.artifacts.iterdir():
        path.unlink()
    commit = await box.commit(state)
    await box.webhook(commit)
    await box.serving("1.0")
    steps = [step["name"] for step in (await box.history())[0]["steps"]]
    assert "fetch" not in steps
    before = (await box.proven("1.0"))["current"]
    assert (before["commit"], before["since"] > first["since"]) == (commit, True)
    await box.stop(signal.SIGKILL)
    await box.start()
    await box.serving("1.0")
    assert (await box.proven("1.0"))["current"] == before


async def test_a_changed_variable_alone_renders_and_restarts_without_a_download(box: Box) -> None:
    files: dict[str, Any] = {"templates/web.conf.j2": "greeting = {{ vars.greeting }}\n"}

    def state(greeting: str) -> dict[str, Any]:
        found = box.state(
            "1.0",
            files=[{"template": "templates/web.conf.j2", "target": "etc/web.conf", "on_change": "restart"}],
        )
        return {**found, "vars": {"greeting": greeting}}

    await box.commit(state("hello"), files)
    await box.start()
    await box.proven("1.0")
    assert await box.get("/file/etc/web.conf") == (200, "greeting = hello\n")
    await box.webhook(await box.commit(state("salut"), files))

    async def said() -> bool:
        return await box.get("/file/etc/web.conf") == (200, "greeting = salut\n")

    await box.until(said)


async def test_a_reload_shows_the_same_child_its_new_file_and_signals_it(box: Box) -> None:
    def state(greeting: str) -> dict[str, Any]:
        return box.state(
            "1.0", files=[{"content": greeting, "target": "etc/web.conf", "on_change": "reload"}]
        )

    await box.commit(state("hello"))
    await box.start()
    pid = (await box.proven("1.0"))["child"]["pid"]
    await box.webhook(await box.commit(state("salut")))

    async def said() -> bool:
        return await box.get("/file/etc/web.conf") == (200, "salut")

    await box.until(said)
    await box.proven("1.0")
    assert (await box.app())["child"]["pid"] == pid
    assert any("reloaded" in line for line in box.output)


async def test_an_app_gone_from_the_state_is_stopped_but_never_all_of_them_silently(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    commit = await box.commit({"schema": 1, "apps": {}})
    status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["failure"]["reason"]) == (409, "PruneRefused")
    assert await box.get() == (200, "1.0\n")


async def test_a_restart_swap_holds_clients_and_loses_none(box: Box) -> None:
    await box.deploy("1.0", swap="restart")
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        await box.deploy("2.0", push=True, swap="restart")
        await box.proven("2.0")
    assert load.failures == []
    assert set(load.answers) <= {"1.0", "2.0", "503"}


async def test_an_app_that_binds_its_port_itself_is_restarted_with_the_page_in_between(box: Box) -> None:
    await box.deploy("1.0", socket=None, maintenance={"hold": "0s"})
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        await box.deploy("2.0", "slow", push=True, socket=None, maintenance={"hold": "0s"})
        await box.proven("2.0")
    assert {"1.0", "2.0"} <= set(load.answers)


async def test_term_stops_the_app_in_order_and_ends_with_zero(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    assert await box.stop() == 0
    assert "web | version 1.0 ends" in box.output
    assert (await box.get())[0] == 0


async def test_kill_9_of_the_agent_touches_no_child_and_the_next_one_goes_on(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    child = (await box.proven("1.0"))["child"]["pid"]
    async with Load(box.port) as load:
        agent = await box.agent_pid()
        os.kill(agent, signal.SIGKILL)

        async def another() -> bool:
            try:
                return await box.agent_pid() != agent
            except Exception:
                return False

        await box.until(another)
        assert (await box.proven("1.0"))["child"]["pid"] == child
        await box.deploy("2.0", push=True)
        await box.proven("2.0")
    assert load.failures == []


async def test_after_kill_9_of_everything_the_last_version_starts_without_git(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    await box.stop(signal.SIGKILL)
    box.settings["--repo"] = "http://127.0.0.1:9/nowhere.git"
    await box.start()
    await box.serving("1.0")

    async def said() -> bool:
        conditions = (await box.status())["conditions"]
        return any(c["type"] == "SourceReachable" and c["status"] == "False" for c in conditions)

    await box.until(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "schema: 1\napps:\n  web: {verison: 1}\n",
            "state.yaml:3:9 apps.web.verison: unknown key, did you mean version?",
        ),
        ("schema: 1\napps: [\n", "state.yaml:"),
    ],
)
async def test_a_broken_state_file_changes_nothing_and_names_the_place(
    box: Box, text: str, said: str
) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    status, answer = await box.webhook(await box.commit(text), wait=True)
    assert status == 409
    assert said in "\n".join(answer["failure"]["log"])
    assert await box.get() == (200, "1.0\n")
    assert (await box.app())["state"] == "running"
