"""What an operator does at a terminal, on the real agent: look, plan, sync, roll back, retry, pause."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.kit.box import SECRET, Box
from tests.kit.operator import Operator
from tests.kit.ports import free_port

QUICK: dict[str, Any] = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "200ms"}
SICK: dict[str, Any] = {**QUICK, "deadline": "300ms"}


@pytest.fixture
def operator(box: Box) -> Operator:
    return Operator(box)


def conditions(app: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in app["conditions"]}


async def gone_back(box: Box, version: str) -> dict[str, Any]:
    return await box.app_is(state="degraded", current__version=version, good__version=version)


async def test_the_verbs_that_look_say_what_runs_in_words_and_in_json(box: Box, operator: Operator) -> None:
    commit = await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")

    told = await operator("status")
    assert (told.code, told.err) == (0, "")
    assert "web  running" in told.out
    assert f"1.0 ({commit[:10]}, sha256:" in told.out
    app = (await operator("status", "web", "--json")).json["apps"]["web"]
    assert (app["state"], app["current"]["version"], app["good"]["version"]) == ("running", "1.0", "1.0")
    assert (await operator("status", "wbe")).code == 2

    told = await operator("history", "--steps")
    assert told.code == 0
    assert "succeeded" in told.out
    assert "first start" in told.out
    assert "switch         succeeded" in told.out
    runs = (await operator("history", "web", "--json")).json["runs"]
    assert [(run["version"], run["result"], run["commit"]) for run in runs] == [("1.0", "succeeded", commit)]

    async def logged() -> bool:
        told = await operator("logs", "web")
        return (told.code, told.out) == (0, "version 1.0 starts\n")

    await box.until(logged)
    told = await operator("logs", "wbe")
    assert told.code == 2
    assert "there are: web" in told.err
    told = await operator("rollback", "web")
    assert told.code == 4
    assert "no earlier deployment that proved itself" in told.err


async def test_plan_shows_what_a_branch_would_do_and_does_nothing(box: Box, operator: Operator) -> None:
    def state(greeting: str, **parts: Any) -> dict[str, Any]:
        return box.state(
            "1.0", health=QUICK, files=[{"content": greeting, "target": "etc/web.conf"}], **parts
        )

    await box.commit(state("greeting = hello\n"))
    await box.start()
    await box.proven("1.0")
    assert "up to date" in (await operator("plan")).out

    changed = state(f"greeting = salut\npassword = {SECRET.decode()}\n")
    changed["apps"]["worker"] = {**changed["apps"]["web"], "listen": None, "socket": None, "health": None}
    changed["apps"]["worker"] = {k: v for k, v in changed["apps"]["worker"].items() if v is not None}
    await box.repository.git("checkout", "-q", "-b", "next")
    commit = await box.commit(changed)
    told = await operator("plan", "next")
    assert told.code == 0
    assert "web  update  1.0  file etc/web.conf" in told.out
    assert "-greeting = hello" in told.out
    assert "+greeting = salut" in told.out
    assert "+password = ***" in told.out
    assert "already in the store" in told.out
    assert "worker  install  1.0  first start" in told.out
    plan = (await operator("plan", "next", "--json")).json
    steps = {name: [step["name"] for step in app["steps"]] for name, app in plan["apps"].items()}
    assert steps["web"] == ["unpack", "render", "check", "start", "probe", "switch", "drain"]
    assert steps["worker"] == ["unpack", "render", "check", "start", "probe", "switch"]
    assert plan["apps"]["web"]["steps"][0]["reason"] == "already in the store"

    assert (await operator("plan", commit, "--json")).json == plan
    old = (await box.history())[0]["commit"]
    assert "up to date" in (await operator("plan", old[:10])).out, "as history shows it"

    told = await operator("plan", "nowhere")
    assert told.code == 4
    assert "nowhere" in told.err
    assert await box.get("/file/etc/web.conf") == (200, "greeting = hello\n")
    status = await box.status()
    assert list(status["apps"]) == ["web"]
    assert len(await box.history()) == 1
    assert conditions(status)["SourceReachable"] == "True"


async def test_planning_a_push_that_no_webhook_announced_does_not_hide_it_from_the_poll(
    box: Box, operator: Operator
) -> None:
    box.settings["--poll"] = "1s"
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    await box.deploy("2.0", health=QUICK)
    assert (await operator("plan")).code == 0
    await box.serving("2.0")


async def test_sync_follows_a_deploy_to_its_end_and_says_how_it_went(box: Box, operator: Operator) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")

    told = await operator("sync")
    assert told.code == 0
    assert "unchanged" in told.out

    await box.deploy("2.0", health=QUICK)
    told = await operator("sync")
    assert told.code == 0
    assert "switch       succeeded" in told.out
    assert told.out.splitlines()[-1].endswith(" succeeded")
    app = await box.app()
    assert (app["state"], app["good"]["version"]) == ("running", "2.0")

    await box.deploy("3.0", "never", health=SICK)
    told = await operator("sync")
    assert told.code == 1
    assert "ProbeFailed" in told.out
    assert "the database pool is exhausted" in told.out
    told = await operator("sync", "--json")
    assert told.code == 1
    assert told.json["failure"]["reason"] == "ProbeFailed"

    await box.deploy("4.0", health=QUICK)
    told = await operator("sync", "--no-wait")
    assert told.code == 0
    assert told.out.startswith("accepted as sync-")
    app = await box.proven("4.0")
    assert conditions(app).get("Quarantined", "False") == "False"


async def test_a_state_with_mistakes_is_told_whole_by_sync(box: Box, operator: Operator) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    await box.commit("schema: 1\napps:\n  web: {verison: 1}\n")
    told = await operator("sync")
    assert told.code == 1
    assert "state.yaml:3:9 apps.web.verison: unknown key, did you mean version?" in told.out


async def test_a_rollback_by_hand_stays_until_a_newer_specification_comes(
    box: Box, operator: Operator
) -> None:
    for version in ("1.0", "2.0"):
        commit = await box.deploy(version, health=QUICK)
        await (operator("sync") if box.process else box.start())
        await box.proven(version)

    told = await operator("rollback", "web")
    assert told.code == 0, told
    app = await gone_back(box, "1.0")
    assert conditions(app)["Diverged"] == "True"
    assert (app["wanted"]["version"], app["wanted"]["commit"]) == ("2.0", commit)
    told = await operator("status")
    assert "Diverged True, OperatorRollback" in told.out

    told = await operator("sync")
    assert (told.code, "not what is wanted" in told.out) == (4, True), told
    status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["result"]) == (200, "unchanged")
    assert await box.get() == (200, "1.0\n")

    await box.stop(signal.SIGKILL)
    await box.start()
    await box.serving("1.0")
    await box.app_is(state="degraded", wanted__version="2.0")
    assert conditions(await box.app())["Diverged"] == "True"

    await box.deploy("3.0", health=QUICK)
    assert (await operator("sync")).code == 0
    app = await box.proven("3.0")
    assert conditions(app)["Diverged"] == "False"
    assert [run["version"] for run in await box.history()][:3] == ["3.0", "1.0", "2.0"]


async def test_a_rollback_can_name_a_version_and_retry_takes_it_back(box: Box, operator: Operator) -> None:
    for version in ("1.0", "2.0", "3.0"):
        await box.deploy(version, health=QUICK)
        await (operator("sync") if box.process else box.start())
        await box.proven(version)

    told = await operator("rollback", "web", "--to", "9.9")
    assert told.code == 4
    assert "there are: 3.0, 2.0, 1.0" in told.err
    told = await operator("rollback", "web", "--to", "3.0")
    assert told.code == 4
    assert "serves already" in told.err
    assert (await operator("rollback", "wbe")).code == 2

    told = await operator("rollback", "web", "--to", "1.0", "--json")
    assert (told.code, told.json["result"]) == (0, "succeeded")
    await gone_back(box, "1.0")

    told = await operator("rollback", "web", "--to", "3.0")
    assert told.code == 0
    app = await box.proven("3.0")
    assert conditions(app)["Diverged"] == "False"
    assert (await operator("sync")).code == 0

    await operator("rollback", "web", "--to", "2.0")
    await gone_back(box, "2.0")
    assert (await operator("retry", "web")).code == 0
    app = await box.proven("3.0")
    assert conditions(app)["Diverged"] == "False"
    told = await operator("retry", "web")
    assert told.code == 4
    assert "nothing of web is in quarantine" in told.err


async def test_a_rollback_in_the_middle_of_a_run_gives_that_up_and_no_more(
    box: Box, operator: Operator
) -> None:
    for version in ("1.0", "2.0"):
        await box.deploy(version, health=QUICK)
        await (operator("sync") if box.process else box.start())
        await box.proven(version)
    flag = box.directory / "flag"
    wait = {"command": ["sh", "-c", f"until [ -e {flag} ]; do sleep 0.05; done"]}
    commit = await box.deploy("3.0", health=QUICK, push=True, tasks={"wait": wait})
    await box.app_is(run__phase="task")
    assert "updates are paused" not in (await operator("plan")).out
    told = await operator("rollback", "web", "--no-wait")
    assert told.code == 0
    flag.touch()
    app = await gone_back(box, "2.0")
    assert (app["wanted"]["version"], conditions(app)["Diverged"]) == ("3.0", "True")
    assert app["last_run"]["result"] in ("cancelled", "succeeded", "superseded")
    assert (await box.webhook(commit, wait=True))[1]["result"] == "unchanged"
    assert await box.get() == (200, "2.0\n")


async def test_retry_tries_a_quarantined_specification_again(box: Box, operator: Operator) -> None:
    flag = box.directory / "database"
    health = {**SICK, "http": None, "exec": ["test", "-e", str(flag)], "alive": None}
    health = {k: v for k, v in health.items() if v is not None}
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    await box.deploy("2.0", health=health)
    assert (await operator("sync")).code == 1
    app = await box.app()
    assert (app["state"], conditions(app)["Quarantined"]) == ("degraded", "True")
    flag.touch()
    assert (await operator("sync")).code == 1

    await box.stop(signal.SIGKILL)
    await box.start()
    app = await box.app_is(state="degraded", current__version="1.0", wanted__version="2.0")
    assert conditions(app)["Quarantined"] == "True"
    assert "retry web" in app["wanted"]["reason"]

    told = await operator("retry", "web")
    assert told.code == 0
    app = await box.proven("2.0")
    assert conditions(app)["Quarantined"] == "False"


async def test_pause_holds_every_change_over_a_restart_of_the_agent_until_resume(
    box: Box, operator: Operator
) -> None:
    state = box.state("1.0", health=QUICK)
    state["apps"]["other"] = {**state["apps"]["web"], "listen": free_port()}
    await box.commit(state)
    await box.start()
    await box.proven("1.0")
    told = await operator("pause", "database maintenance")
    assert (told.code, told.out) == (0, "paused: database maintenance\n")

    await box.deploy("2.0", health=QUICK)  # and `other` is gone
    told = await operator("sync")
    assert told.code == 4
    assert "database maintenance" in told.out
    told = await operator("plan")
    assert "updates are paused: database maintenance; after that:" in told.out
    assert "web  update  2.0" in told.out
    assert "other  remove" in told.out
    status = await box.status()
    assert status["paused"]["message"] == "database maintenance"
    assert conditions(status)["Paused"] == "True"
    assert status["apps"]["other"]["state"] == "running"

    await box.stop()
    await box.start()
    await box.serving("1.0")
    assert "database maintenance" in (await operator("status")).out
    await box.app_is(wanted__version="2.0", current__version="1.0")
    assert await box.get() == (200, "1.0\n")

    told = await operator("resume")
    assert told.code == 0
    await box.proven("2.0")
    status = await box.status()
    assert (status["paused"], list(status["apps"])) == (None, ["web"])
    assert "Paused" not in conditions(status)


async def test_a_hangup_signal_is_an_operators_sync_and_no_signal_but_the_ends_harms_the_agent(
    box: Box,
) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    pid = await box.agent_pid()
    assert box.process is not None
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        box.process.send_signal(number)
    await box.deploy("2.0", health=QUICK)
    box.process.send_signal(signal.SIGHUP)
    await box.proven("2.0")
    assert await box.agent_pid() == pid


async def test_config_shows_what_the_agent_was_given_and_no_content_of_a_secret_file(
    box: Box, operator: Operator
) -> None:
    box.settings["--label"] = "env=prod"
    told = await operator("config", *box.command()[5:])
    assert told.code == 0
    assert ["labels", "env=prod"] in [line.split() for line in told.out.splitlines()]
    assert str(box.secret_file) in told.out
    assert "unguessable" not in told.out


async def test_validate_is_a_check_for_the_state_repository_as_it_lies_there(
    box: Box, operator: Operator
) -> None:
    await box.deploy("1.0")
    told = await operator("validate", str(box.repository.work))
    assert (told.code, told.out) == (0, "valid: web 1.0\n")
    await box.commit("schema: 1\napps:\n  web: {verison: 1}\n")
    told = await operator("validate", str(box.repository.work))
    assert told.code == 1
    assert "state.yaml:3:9 apps.web.verison: unknown key, did you mean version?" in told.out.splitlines()
