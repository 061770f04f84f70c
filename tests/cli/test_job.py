"""`emptybox job` against the real HTTP face; only what is behind it is scripted."""

from __future__ import annotations

import json

from agent.cli.exit_codes import NOT_NOW, OK, USAGE
from agent.domain.job import JobResult
from tests.cli.stage import staged


async def test_a_run_is_begun_and_its_output_and_exit_code_are_the_commands_own() -> None:
    async with staged() as stage:
        told = await stage.command("job", "run", "report", "DAY=monday")
        assert (told.code, told.out) == (OK, "what the job says\nand ends with\n")
        assert stage.jobs.asked == [("run", "report", {"DAY": "monday"})]
        stage.jobs.result, stage.jobs.code = JobResult.FAILED, 7
        told = await stage.command("job", "run", "report")
        assert (told.code, told.out.startswith("what the job says\n")) == (7, True)
        told = await stage.command("job", "run", "report", "--no-wait", "--json")
        assert (told.code, json.loads(told.out)) == (OK, {"run": "job-2"})


async def test_what_is_not_possible_has_the_exit_code_for_it() -> None:
    async with staged() as stage:
        assert (await stage.command("job", "run", "report", "BUSY=1")).code == NOT_NOW
        assert (await stage.command("job", "run", "nobody")).code == USAGE
        assert (await stage.command("job", "run", "report", "monday")).code == USAGE


async def test_past_runs_are_shown_and_a_run_is_stopped() -> None:
    async with staged() as stage:
        told = await stage.command("job", "runs", "report", "--output")
        assert "job-2" in told.out and "what the job says" in told.out and "\x1b" not in told.out
        assert (await stage.command("job", "stop", "report")).code == OK
        assert stage.jobs.asked == [("stop", "report")]
