"""Jobs over HTTP: who may begin them, how they are answered, what is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.domain.job import JobResult
from tests.kit.faces import hall


async def test_a_run_is_begun_at_once_and_can_be_waited_for(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        wish = {"app": "report", "parameters": {"DAY": "monday"}}
        answer = await it.socket.post("/job/run", json=wish)
        assert (answer.status, answer.json) == (202, {"run": "job-2"})
        assert it.control.jobs.asked == [("run", "report", {"DAY": "monday"})]
        answer = await it.socket.post("/job/run?wait=1", json={"app": "report"})
        assert (answer.status, answer.json["result"], answer.json["code"]) == (200, "succeeded", 0)
        it.control.jobs.result, it.control.jobs.code = JobResult.FAILED, 7
        answer = await it.socket.post("/job/run?wait=1", json={"app": "report"})
        assert (answer.status, answer.json["reason"]) == (409, "JobNotSuccessful")
        assert (answer.json["code"], answer.json["output"][0]) == (7, "what the job says")


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ({"app": "nobody"}, 404),
        ({"app": "report", "parameters": {"BUSY": "1"}}, 409),
        ({"app": "report", "parameters": {"DAY": ["monday"]}}, 400),
        ({"app": "report", "shell": "rm"}, 400),
        ({}, 400),
    ],
)
async def test_what_cannot_be_begun_is_answered_with_one_clear_problem(
    wish: dict[str, object], status: int, tmp_path: Path
) -> None:
    async with hall(tmp_path) as it:
        answer = await it.socket.post("/job/run", json=wish)
        assert (answer.status, it.control.jobs.asked) == (status, [])
        assert answer.headers["Content-Type"] == "application/problem+json"


async def test_runs_and_what_they_said_are_told_to_whom_the_agent_trusts(tmp_path: Path) -> None:
    async with hall(tmp_path) as it:
        assert (await it.admin.get("/jobs")).status == 403
        assert (await it.admin.post("/job/run?app=report")).status == 403
        assert (await it.admin.post("/job/stop?app=report")).status == 403
        told = (await it.socket.get("/jobs?app=report")).json["jobs"][0]
        assert (told["id"], told["seconds"]) == ("job-2", 2.5)
        text = (await it.socket.get("/jobs.txt")).text
        assert "report" in text and "\x1b" not in text
        assert (await it.socket.post("/job/stop?app=report")).status == 202
        assert it.control.jobs.asked == [("stop", "report")]
