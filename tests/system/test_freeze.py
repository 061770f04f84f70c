"""A freeze through the whole agent: prepared, not switched; an override goes through and leaves a trace."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.kit.box import Box
from tests.kit.operator import Operator

ALWAYS = [{"cron": "* * * * *", "duration": "1h", "reason": "audit"}]


def frozen(box: Box, version: str) -> dict[str, Any]:
    return {**box.state(version), "freeze": ALWAYS}


async def test_in_a_freeze_a_push_is_prepared_and_an_override_switches_with_a_trace(tmp_path: Path) -> None:
    async with Box(tmp_path / "box") as box:
        await box.commit(frozen(box, "1.0"))
        await box.start()
        await box.proven("1.0")  # where nothing runs, nothing is held up
        commit = await box.commit(frozen(box, "2.0"))
        status, answer = await box.webhook(commit, wait=True)
        assert (status, answer["result"]) == (200, "unchanged")
        prepared = await box.app_is(last_run__result="prepared")
        assert prepared["current"]["version"] == "1.0"
        assert await box.get() == (200, "1.0\n")
        [run] = [run for run in await box.history() if run["result"] == "prepared"]
        assert [step["kind"] for step in run["steps"]] == ["fetch", "verify", "release", "render", "check"]
        assert {step["result"] for step in run["steps"]} == {"succeeded"}
        conditions = {c["type"]: c for c in (await box.status())["conditions"]}
        assert conditions["Frozen"]["status"] == "True"
        assert "audit" in conditions["Frozen"]["message"]
        await box.stop()  # and what is prepared is still there in the next life
        await box.start()
        await box.serving("1.0")

        await box.app_is(wanted__version="2.0")
        told = await Operator(box)("sync", "--override", "incident 4711")
        assert told.code == 0, told
        await box.proven("2.0")
        run = (await box.history())[0]
        assert [step["name"] for step in run["steps"]][:2] == [
            "unpack",
            "render",
        ]  # nothing was fetched again
        assert "through the freeze: incident 4711" in run["detail"]
        assert ("override", "incident 4711") in [(mark["name"], mark["detail"]) for mark in run["marks"]]


async def test_taking_the_window_out_of_the_state_ends_the_freeze(tmp_path: Path) -> None:
    async with Box(tmp_path / "box") as box:
        await box.commit(frozen(box, "1.0"))
        await box.start()
        await box.proven("1.0")
        await box.commit(frozen(box, "2.0"))
        assert (await Operator(box)("sync")).code == 4
        await box.deploy("2.0", push=True)
        await box.proven("2.0")


async def test_at_the_end_of_the_window_what_is_prepared_is_switched_by_itself(tmp_path: Path) -> None:
    async with Box(tmp_path / "box") as box:
        await box.deploy("1.0")
        await box.start()
        await box.proven("1.0")
        now = time.time()
        begin = time.gmtime(now)
        lasting = begin.tm_sec + 6
        window = {"cron": f"{begin.tm_min} {begin.tm_hour} * * *", "duration": f"{lasting}s"}
        commit = await box.commit({**box.state("2.0"), "freeze": [window]})
        await box.webhook(commit)
        await box.proven("2.0")  # nobody pushes again
        runs = await box.history()
        assert runs[0]["result"] == "succeeded"
        if any(run["result"] == "prepared" for run in runs):  # else the machine was too slow
            assert runs[0]["triggers"] == ["schedule"]
