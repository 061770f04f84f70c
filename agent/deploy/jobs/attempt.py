"""One attempt of a job's run: a program of the keeper's, which the agent's death does not end.

| the row says | the keeper has | what it means |
|---|---|---|
| running | the child | it goes on, or ended meanwhile: its exit code is there |
| running, in this keeper's life | no such child | it never began: the agent died before |
| running, in another keeper's life | no such child | it ended with that keeper, nobody knows how far it got |

For the row is on the disk before the child is asked for, and the child is forgotten after its end is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from agent.deploy.deployments import Deployment
from agent.deploy.processes import Processes
from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.job import Cause, JobRun
from agent.kit.clock import rfc3339
from agent.kit.tasks import uninterrupted
from agent.process.command import to_its_end
from agent.process.keepers import Keeper
from agent.process.stop import end_group

log = logging.getLogger(__name__)

INTERRUPTED = FailureInfo(
    FailureKind.TRANSIENT,
    "JobInterrupted",
    "the keeper ended in the middle of it, so nobody knows how far it got",
    remedy="look at what it does, and run it again if need be: emptybox job run",
)


class JobNote(msgspec.Struct, frozen=True):
    """What the keeper remembers with the child of a run. All texts: see `leftovers`."""

    app: str
    job: str
    instance: str


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended; `failure` None: well. `stopped`: because somebody wanted it to."""

    code: int | None
    signal: int | None
    failure: FailureInfo | None
    lines: tuple[str, ...] = ()
    stopped: bool = False


def notes(keeper: Keeper, app: str) -> dict[str, JobNote]:
    """The keeper's children that are attempts of the app's runs, by their names."""
    found = {}
    for record in keeper.children.values():
        try:
            note = msgspec.json.decode(record.note, type=JobNote)
        except msgspec.MsgspecError:
            continue
        if note.app == app:
            found[record.child] = note
    return found


async def begin(processes: Processes, deployment: Deployment, run: JobRun, *, plain: bool) -> None:
    """Start the child that the row names, unless it is there. Raises Failure, OSError.

    `plain`: its lines are passed on as they are.
    """
    if run.child in processes.keeper.children:
        return
    job = deployment.spec.job
    assert job is not None
    instance = await processes.surroundings.instance(deployment, run.child.rpartition("/")[2])
    note = msgspec.json.encode(JobNote(run.app, run.id, str(instance))).decode()
    try:
        context = processes.surroundings.context(deployment, instance, _variables(run))
        context = replace(context, note=note, plain=plain)
        started = context.spawn(processes.keeper, run.child, job.command)
        await uninterrupted(started, name=f"start {run.child}")
    except BaseException:
        if run.child not in processes.keeper.children:
            await processes.surroundings.remove_instance(instance)
        raise


async def until_end(processes: Processes, deployment: Deployment, run: JobRun, asked: asyncio.Event) -> End:
    """Wait for the end, or bring it about: at the deadline, or when `asked` is set. Raises Failure.

    Cancelled, the child goes on.
    """
    job, keeper = deployment.spec.job, processes.keeper
    assert job is not None
    result = await to_its_end(keeper, run.child, timeout=job.timeout, asked=asked, ladder=job.stop)
    late, lines = result.timeout is not None, result.log
    limit = await processes.surroundings.limit_hit(deployment.spec, run.child)
    await processes.surroundings.ungroup(deployment.spec, run.child)
    if result.ok:
        return End(0, None, None, lines)
    reason = "DeadlineExceeded" if late else "JobFailed"
    message = f"the job {result.ended}" if run.attempt < 2 else f"attempt {run.attempt} {result.ended}"
    if limit:
        reason = "LimitExceeded"
        message += f"; one of its processes was killed by {limit}"
    failure = FailureInfo(
        FailureKind.PERMANENT,
        reason,
        message,
        where=" ".join(job.command[:1]),
        remedy="see its output",
        log=lines,
    )
    return End(result.code, result.signal, failure, lines, stopped=asked.is_set() and not late)


async def forget(processes: Processes, child: str) -> None:
    """Drop what is left of an attempt whose end is on the disk; of one that runs, end it first."""
    keeper = processes.keeper
    record = keeper.children.get(child)
    if record is None:
        return
    instance = msgspec.json.decode(record.note, type=JobNote).instance
    try:
        await end_group(keeper, child)
        await keeper.wait(child)
        await keeper.forget(child)
        await processes.surroundings.remove_instance(Path(instance))
    except (Failure, OSError) as error:
        log.warning("%s: %s", child, error)


def _variables(run: JobRun) -> Mapping[str, str]:
    """What a run is told beside its parameters."""
    return {
        **run.parameters,
        "EMPTYBOX_RUN": run.id,
        "EMPTYBOX_CAUSE": str(run.cause),
        "EMPTYBOX_ATTEMPT": str(run.attempt),
        "EMPTYBOX_DUE": rfc3339(run.due) if run.cause is Cause.SCHEDULE else "",
    }
