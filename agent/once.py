"""`emptybox once`: bring the host to the state, run its jobs, and end with the exit code of the job.

As a Kubernetes Job, a CronJob or a step of a pipeline wants it: what a job says goes to standard output as
it is, what emptybox itself has to say goes to standard error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.config import ConfigError
from agent.deploy.lane import Lane
from agent.deploy.reconciler import Lanes
from agent.domain.control import NotPossible
from agent.domain.job import Cause
from agent.domain.model import SyncResult

log = logging.getLogger(__name__)

EXIT_FAILED = 1
DEADLINE = 3600.0  # seconds for the sync


@dataclass(frozen=True, slots=True)
class Once:
    """What is wanted of it. `app` "" means every app of the state; `parameters` are for the job `app`."""

    app: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def read(arguments: Sequence[str]) -> tuple[Once, list[str]]:
    """Take --app NAME and --set NAME=VALUE out of the flags; returns the rest, too. Raises ConfigError."""
    app, parameters, rest = "", {}, []
    words = list(arguments)
    while words:
        word = words.pop(0)
        flag, equals, text = word.partition("=")
        if flag not in ("--app", "--set"):
            rest.append(word)
            continue
        if not equals:
            text = words.pop(0) if words else ""
        name, sign, value = text.partition("=")
        if flag == "--set" and name and sign:
            parameters[name] = value
        elif flag == "--app" and text:
            app = text
        else:
            raise ConfigError([f"{flag}: needs {'a name' if flag == '--app' else 'NAME=VALUE'}"])
    if parameters and not app:
        raise ConfigError(["--set: needs --app, the job that the parameters are for"])
    return Once(app, parameters), rest


async def carry_out(once: Once, lanes: Lanes, end: asyncio.Future[SyncResult]) -> int:
    """Wait for the last word on the first sync and run the jobs, one after the other; the exit code.

    That is 0 when everything came up as wanted, proved itself, and every job succeeded; the code of the
    first job that did not, 128 and the signal's number for one that a signal ended; else 1.
    """
    try:
        async with asyncio.timeout(DEADLINE):
            result = await end
    except TimeoutError:
        log.error("once: not done within %.0f s", DEADLINE)
        return EXIT_FAILED
    log.info("once: %s", result)
    if result not in (SyncResult.SUCCEEDED, SyncResult.UNCHANGED):
        return EXIT_FAILED
    first = 0
    for lane in lanes.live().values():
        current = lane.app.current
        if current is None and once.app:
            log.error("once: nothing of %s is released here", lane.name)
            return EXIT_FAILED
        if current is not None and current.spec.job is not None:
            first = first or await _run(once, lane)
    return first


async def _run(once: Once, lane: Lane) -> int:
    jobs = lane.app.jobs
    await jobs.rest("an earlier run ends")  # one that was cut short has its attempts first
    jobs.resume()
    try:
        run = await jobs.ask(Cause.ONCE, "emptybox once", once.parameters)
    except NotPossible as error:
        log.error("once: %s", error)
        return EXIT_FAILED
    await jobs.ended(run.id)
    ended = (await lane.services.journal.jobs.history(lane.name, 1, run.id))[0]
    if ended["result"] == "succeeded":
        return 0
    if ended["signal"]:
        return 128 + int(ended["signal"])
    return int(ended["code"] or EXIT_FAILED)
