"""Jobs for a control that is only played: implements `agent.domain.control.JobControl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.domain.control import NotPossible, UnknownApp
from agent.domain.job import Cause, JobResult, JobRun, run_json


class PlayedJobs:
    """One job, report, that ends as `result` says; `asked` is what it heard."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.result = JobResult.SUCCEEDED
        self.code: int | None = 0

    async def run(self, app: str, by: str, parameters: Mapping[str, str]) -> str:
        self._known(app)
        if "BUSY" in parameters:
            raise NotPossible("run job-1 of report is under way, and overlap is not allowed")
        self.asked.append(("run", app, dict(parameters)))
        return "job-2"

    async def stop(self, app: str, by: str) -> None:
        self._known(app)
        self.asked.append(("stop", app))

    async def wait(self, app: str, run: str, deadline: float) -> Mapping[str, Any] | None:
        return (await self.runs(app))[0]

    async def runs(self, app: str = "", limit: int = 20, run: str = "") -> Sequence[Mapping[str, Any]]:
        played = JobRun(
            id="job-2", app="report", cause=Cause.OPERATOR, result=self.result, code=self.code,
            started=1000.0, ended=1002.5, attempt=1,
        )  # fmt: skip
        return [{**run_json(played), "output": ["what the job says", "\x1b[2Jand ends with"]}]

    def _known(self, app: str) -> None:
        if app != "report":
            raise UnknownApp(f"no app {app!r}; there are: report")
