"""What operators ask of jobs, carried out: the implementation of `agent.domain.control.JobControl`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agent.deploy.jobs.jobs import Jobs
from agent.deploy.jobs.ledger import Ledger
from agent.deploy.reconciler import Lanes
from agent.domain.control import NotPossible, UnknownApp
from agent.domain.errors import Failure
from agent.domain.job import Cause


class JobDesk:
    """See the module."""

    def __init__(self, lanes: Lanes, ledger: Ledger) -> None:
        self._lanes = lanes
        self._ledger = ledger

    async def run(self, app: str, by: str, parameters: Mapping[str, str]) -> str:
        """Begin a run now; its id once it is recorded. Raises UnknownApp, NotPossible."""
        try:
            return (await self._jobs(app).ask(Cause.OPERATOR, by, parameters)).id
        except Failure as failure:
            raise NotPossible(str(failure)) from failure

    async def stop(self, app: str, by: str) -> None:
        """Stop the runs under way. Raises UnknownApp, NotPossible."""
        await self._jobs(app).stop(by)

    async def wait(self, app: str, run: str, deadline: float) -> Mapping[str, Any] | None:
        """A run as JSON once it has ended; None when `deadline` seconds passed first. Raises UnknownApp."""
        try:
            async with asyncio.timeout(deadline):
                await self._jobs(app).ended(run)
        except TimeoutError:
            return None
        return next(iter(await self._ledger.history(app, 1, run)), None)

    async def runs(self, app: str = "", limit: int = 20, run: str = "") -> Sequence[Mapping[str, Any]]:
        """Runs, or one, as JSON, newest first, with what they said."""
        return await self._ledger.history(app, limit, run)

    def _jobs(self, app: str) -> Jobs:
        lanes = self._lanes.live()
        if app not in lanes:
            raise UnknownApp(f"no app {app!r}; there are: {', '.join(lanes) or 'none'}")
        return lanes[app].app.jobs
