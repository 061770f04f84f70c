"""How things end on the real agent: `once`, an app that leaves the state and comes back, orderly stops."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from typing import Any

from tests.kit.box import Box, Load
from tests.kit.operator import Operator, run
from tests.kit.ports import free_port
from tests.kit.programs import left_behind

QUICK: dict[str, Any] = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "200ms"}


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the past do not count
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


async def test_once_converges_says_so_and_leaves_nothing_running(box: Box) -> None:
    await box.deploy("1.0", health=QUICK, hooks={"cleanup": ["echo", "cleaned up"]})
    told = await run(*box.command("once")[4:])
    assert told.code == 0, told.err
    assert "web: version 1.0 proved itself" in told.out + told.err
    assert "web | version 1.0 ends" in told.out
    assert "cleaned up" in told.out
    assert left_behind(box) == []
    assert is_free(box.port)
    assert not (box.data / "agent.sock").exists()

    told = await run(*box.command("once")[4:])
    assert told.code == 0
    assert "once: unchanged" in told.err
    assert left_behind(box) == []


async def test_once_fails_with_1_when_a_release_goes_bad_even_on_probation(box: Box) -> None:
    health = {**QUICK, "probation": "20s"}
    await box.deploy("1.0", "sickens", health=health)
    told = await run(*box.command("once")[4:])
    assert told.code == 1
    assert "ProbeFailed" in told.err
    assert left_behind(box) == []
    assert is_free(box.port)


async def test_once_fails_with_1_when_the_state_cannot_be_read_and_when_it_is_interrupted(box: Box) -> None:
    await box.commit("schema: 1\napps: [\n")
    told = await run(*box.command("once")[4:])
    assert (told.code, "StateInvalid" in told.err) == (1, True)

    await box.deploy("1.0", health={**QUICK, "probation": "1h"})
    await box.start("once")
    await box.serving("1.0")
    assert await box.stop(signal.SIGINT) == 1
    assert left_behind(box) == []


async def test_an_app_that_leaves_the_state_is_stopped_cleaned_up_and_may_come_back(box: Box) -> None:
    operator, other = Operator(box), free_port()

    def state(version: str, *, both: bool) -> dict[str, Any]:
        hooks = {
            "init": ["sh", "-c", "echo born >> data/life"],
            "cleanup": ["sh", "-c", "echo gone >> data/life"],
        }
        found = box.state(version, health=QUICK, hooks=hooks, dirs={"state": "data"})
        if both:
            found["apps"]["other"] = {**found["apps"]["web"], "listen": other, "hooks": {}}
        else:
            found["apps"] = {"other": {**found["apps"]["web"], "listen": other, "hooks": {}}}
        return found

    await box.commit(state("1.0", both=True))
    await box.start()
    await box.proven("1.0")
    life = box.data / "apps/web/dirs/state/life"
    assert life.read_text() == "born\n"

    async with Load(box.port) as load:
        await box.commit(state("1.0", both=False))
        assert (await operator("sync")).code == 0
    assert set(load.answers) <= {"1.0", "503"}
    assert list((await box.status())["apps"]) == ["other"]
    assert life.read_text() == "born\ngone\n"
    assert is_free(box.port)
    assert (await operator("status", "web")).code == 2
    assert "emptybox_app_up" in (metrics := await box.metrics())
    assert 'app="web"' not in "\n".join(line for line in metrics.splitlines() if "app_up" in line)

    await box.commit({"schema": 1, "apps": {}})
    told = await operator("sync")
    assert (told.code, "PruneRefused" in told.out) == (1, True)
    assert "emptybox sync --prune-all" in told.out
    assert (await operator("sync", "--prune-all")).code == 0
    status = await box.status()
    assert status["apps"] == {}
    assert is_free(other)
    assert "web" not in " ".join(left_behind(box))

    await box.stop()
    await box.start()
    await box.commit(state("1.0", both=True))
    assert (await operator("sync")).code == 0
    await box.proven("1.0")
    assert life.read_text() == "born\ngone\nborn\n"
    steps = [step["name"] for step in (await box.history())[0]["steps"]]
    assert "fetch" not in steps


async def test_an_app_that_is_back_before_it_is_gone_is_not_forgotten(box: Box) -> None:
    stop = {"command": None, "stop": {"grace": "5s"}}
    state = box.state("1.0", health=QUICK, hooks={"cleanup": ["sleep", "0.5"]})
    stop["command"] = state["apps"]["web"]["run"]["command"]
    other = {**state["apps"]["web"], "listen": free_port(), "hooks": {}}
    both = {"schema": 1, "apps": {"web": state["apps"]["web"], "other": other}}
    await box.commit(both)
    await box.start()
    await box.proven("1.0")
    await box.webhook(await box.commit({"schema": 1, "apps": {"other": other}}))

    async def ending() -> bool:
        return "web | version 1.0 ends" in box.output

    await box.until(ending)
    await box.commit(both)
    told = await Operator(box)("sync", "--json")
    assert (told.code, json.loads(told.out)["result"]) == (0, "succeeded")
    await box.proven("1.0")
    assert await box.get() == (200, "1.0\n")


async def test_stopping_in_order_answers_everyone_who_came_before(box: Box) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    async with Load(box.port) as load:
        await box.until(lambda: _answered(load))
        assert await box.stop() == 0
        answered = dict(load.answers)
    assert answered["1.0"] > 0
    assert set(load.answers) <= {"1.0", "503"}
    # Once nobody listens, connections are refused; only who came in that very moment may be cut off.
    cut_off = [failure for failure in load.failures if not failure.startswith("ConnectionRefusedError")]
    assert len(cut_off) <= 4


async def _answered(load: Load) -> bool:
    return load.total > 20


async def test_a_copy_of_the_data_directory_serves_what_served_without_git_or_artifacts(box: Box) -> None:
    await box.deploy("1.0", health=QUICK, dirs={"state": "data"}, hooks={"init": ["touch", "data/born"]})
    await box.start()
    await box.proven("1.0")
    await box.stop()
    copy = box.directory / "copy"
    shutil.copytree(box.data, copy, symlinks=True)
    shutil.rmtree(box.artifacts)
    await box.start()
    await box.proven("1.0")

    box.settings |= {"--repo": "http://127.0.0.1:9/nowhere.git", "--data": str(copy)}
    told = await run(*box.command("once")[4:])  # on the same ports: only one of the two may have them
    assert told.code == 2
    assert await box.get() == (200, "1.0\n"), "a copy leaves the original's children alone"
    await box.stop()
    box.data = copy
    await box.start()
    await box.serving("1.0")
    assert (copy / "apps/web/dirs/state/born").exists()
    assert [run["version"] for run in await box.history()] == ["1.0"]
