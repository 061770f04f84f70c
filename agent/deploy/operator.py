"""What operators ask for, carried out: the implementation of `agent.domain.control.Control`."""

from __future__ import annotations

import asyncio
import difflib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from agent.artifact.artifacts import Artifacts
from agent.deploy.canary import Canary
from agent.deploy.data import way_to
from agent.deploy.deployments import Deployment
from agent.deploy.execs import ExecDesk
from agent.deploy.jobs.desk import JobDesk
from agent.deploy.journal import Journal
from agent.deploy.lane import Lane
from agent.deploy.look import Look
from agent.deploy.planned_migrations import after
from agent.deploy.planner import Situation, plan
from agent.deploy.reconciler import Lanes, Reconciler
from agent.deploy.run_context import situation
from agent.deploy.said import Said
from agent.deploy.settlement import Settlement
from agent.deploy.table import ProcessTable
from agent.deploy.upkeep import Upkeep
from agent.deploy.wish import Wish
from agent.deploy.wording import OPERATOR_ROLLBACK, told_apart
from agent.domain.control import Accepted, Line, NotPossible, UnknownApp
from agent.domain.errors import Failure, FailureInfo, FailureKind
from agent.domain.events import Bus, PauseChanged, SyncFinished, SyncStarted
from agent.domain.model import NoChange, Trigger, TriggerKind, new_id
from agent.domain.spec import AppSpec
from agent.source.inbox import TriggerInbox

log = logging.getLogger(__name__)

PAUSE = "pause"  # key of the journal's fact that holds the operator's message
DIFF_LINES = 200


class Operator:
    """Every wish of an operator, by the command line or the HTTP face."""

    def __init__(
        self, inbox: TriggerInbox, reconciler: Reconciler, lanes: Lanes, look: Look,
        journal: Journal, said: Said, artifacts: Artifacts, upkeep: Upkeep, bus: Bus,
        release_of: Callable[[AppSpec], Awaitable[tuple[AppSpec, str]]],
        try_successor: Callable[[], Awaitable[Mapping[str, Any]]],
        table: ProcessTable, examine: Callable[[], Awaitable[Mapping[str, Any]]], execs: ExecDesk,
    ) -> None:  # fmt: skip
        self._inbox = inbox
        self._reconciler = reconciler
        self._lanes = lanes
        self._look = look
        self._journal = journal
        self._said = said
        self._artifacts = artifacts
        self._upkeep = upkeep
        self._bus = bus
        self._release_of = release_of
        self._try_successor = try_successor
        self._table = table
        self._examine = examine
        self.jobs = JobDesk(lanes, journal.jobs)
        self.execs = execs
        self.upgrading = asyncio.Event()  # this agent is to make way for the next one

    def sync(
        self, by: str, *, prune_all: bool = False, accept_history: bool = False, override: str = ""
    ) -> Accepted:
        """Look at the truth now; `override` says why also in a freeze, which history keeps."""
        if prune_all:
            self._reconciler.allow_prune_all()
        if accept_history:
            self._reconciler.accept_history()
        told = f"sync by {by}{f', through the freeze: {override}' if override else ''}"
        if override:
            log.warning("%s", told)
        return self._inbox.offer(Trigger(TriggerKind.OPERATOR, detail=told, override=override))

    async def wait(self, sync: str, deadline: float) -> SyncFinished | None:
        """The end of a sync; None when `deadline` seconds passed first."""
        return await self._inbox.wait(sync, deadline)

    async def rollback(self, app: str, by: str, to: str = "") -> Accepted:
        """Back to an earlier deployment; what is wanted is set aside until a newer specification comes.

        While a run is under way that is the end of it: what serves goes on. A canary is aborted.
        """
        lane = self._lane(app)
        if lane.app.canary.running and not to:
            return await self.abort(app, by)
        current = lane.app.current
        target = self._target(lane, current, to)
        way = way_to(lane.app, target.spec, target.pair.release, back=True)
        if way.blocked:
            raise NotPossible(str(way.failure()))
        if current is not None:
            left = lane.wanted if target is current and lane.wanted is not None else current.pair
            failure = FailureInfo(
                FailureKind.OPERATOR,
                OPERATOR_ROLLBACK,
                f"{by} went back from version {told_apart(left, target.pair)}",
                remedy=f"push a changed specification, or: emptybox retry {app}",
            )
            for spec in {
                current.spec.digest,
                lane.app.wanted.digest if lane.app.wanted else current.spec.digest,
            }:
                await self._journal.safely(self._journal.quarantine.add, app, spec, failure)
        await self._journal.safely(self._journal.quarantine.remove, app, target.spec.digest)
        sync = new_id("sync")
        self._journal.open_sync(sync, kinds=[str(TriggerKind.OPERATOR)], detail=f"rollback of {app} by {by}")
        self._bus.publish(SyncStarted(sync, (TriggerKind.OPERATOR,)))
        self._inbox.adopt(sync)
        settlement = Settlement(sync, "", [app], self._reconciler.ended)  # no commit was looked at
        back = Wish(target.spec, target.pair.commit, settlement, operator=True, rollback=True)
        back.signer = target.pair.signer
        lane.want(back)
        return Accepted(sync)

    def _target(self, lane: Lane, current: Deployment | None, to: str) -> Deployment:
        if to:
            there = lane.app.deployments.all()
            found = [
                d for d in there if d.pair.version == to or (len(to) >= 8 and d.pair.spec.startswith(to))
            ]
            if not found:
                known = ", ".join(dict.fromkeys(d.pair.version for d in there)) or "none"
                raise NotPossible(f"no deployment {to!r} of {lane.name} is on disk; there are: {known}")
            others = [d for d in found if current is None or d.pair.spec != current.pair.spec]
            if not others:
                raise NotPossible(f"{to} of {lane.name} serves already")
            return others[0]
        if current is not None and lane.updating:
            return current
        good = lane.app.good
        if good is not None and (current is None or good.pair.spec != current.pair.spec):
            return good
        for deployment in lane.app.deployments.proven():
            if current is None or deployment.pair.spec != current.pair.spec:
                return deployment
        raise NotPossible(f"{lane.name} has no earlier deployment that proved itself")

    async def retry(self, app: str, by: str) -> Accepted:
        """Take the quarantine off, and look at the truth."""
        if app:
            self._lane(app)
        if not self._journal.quarantine.list(app):
            raise NotPossible(f"nothing of {app or 'any app'} is in quarantine")
        await self._journal.in_time(self._journal.quarantine.remove(app, durable=True))
        return self._inbox.offer(Trigger(TriggerKind.OPERATOR, detail=f"retry of {app or 'all'} by {by}"))

    async def promote(self, app: str, by: str) -> Accepted:
        """End the canary well; the run it belongs to goes on."""
        canary = self._lane(app).app.canary
        return self._decided(app, canary, canary.passed(), "promote", by)

    async def abort(self, app: str, by: str) -> Accepted:
        """End the canary badly: the old version serves alone, the new one is set aside."""
        canary = self._lane(app).app.canary
        return self._decided(app, canary, canary.abort(by), "abort", by)

    def _decided(self, app: str, canary: Canary, heard: bool, word: str, by: str) -> Accepted:
        if not heard:
            raise NotPossible(f"{app} has no canary under way")
        self._journal.mark(canary.run, word, f"by {by}")
        return Accepted(canary.sync)

    async def pause(self, message: str, by: str) -> None:
        """Start no runs until `resume`; survives restarts."""
        await self._journal.in_time(self._journal.put_fact(PAUSE, message or f"paused by {by}", durable=True))
        self._bus.publish(PauseChanged(message or f"paused by {by}", by))

    async def resume(self, by: str) -> Accepted:
        """Undo `pause`, and look at the truth."""
        await self._journal.in_time(self._journal.put_fact(PAUSE, None, durable=True))
        self._bus.publish(PauseChanged(None, by))
        return self._inbox.offer(Trigger(TriggerKind.OPERATOR, detail=f"resume by {by}"))

    async def upgrade(self, by: str) -> Mapping[str, Any]:
        """Try the installed code, then ask this agent to make way for it."""
        newer = await self._try_successor()
        log.info("%s asked for an upgrade to version %s", by, newer["version"])
        self.upgrading.set()
        return newer

    def paused(self) -> str | None:
        """The operator's message while updates are paused."""
        return self._journal.fact(PAUSE)

    async def plan(self, ref: str = "") -> Mapping[str, Any]:
        """What a sync of `ref` would do, or will do after a pause: steps with reasons, rendered files."""
        try:
            desired = await self._look.peek(await self._whole(ref))
        except Failure as failure:
            raise NotPossible(str(failure)) from failure
        apps: dict[str, Any] = {}
        for name, wanted in desired.apps.items():
            apps[name] = await self._plan_one(name, wanted)
        for name, info in desired.refused.items():
            apps[name] = {"action": "fail", "reason": str(info), "steps": []}
        leaving = [name for name in self._lanes.live() if name not in apps]
        for name in leaving:
            apps[name] = {"action": "remove", "reason": "not in the state", "steps": []}
        paused = self.paused()
        return {
            "commit": desired.commit,
            "warnings": list(desired.warnings),
            **({"paused": paused} if paused is not None else {}),
            "apps": apps,
        }

    async def _whole(self, ref: str) -> str:
        """The full id of a commit that is named by its beginning and was looked at before; else `ref`."""
        if re.fullmatch("[0-9a-f]{7,39}", ref):
            found = await self._journal.commits(ref)
            return found[0] if len(found) == 1 else ref
        return ref

    async def _plan_one(self, name: str, wanted: AppSpec) -> dict[str, Any]:
        lane = self._lanes.by_name.get(name)
        try:
            spec, release = await self._release_of(wanted)
        except Failure as failure:
            return {"action": "fail", "reason": str(failure), "steps": []}
        if lane is None:
            current = None
            artifact = spec.artifact
            here = artifact is not None and self._artifacts.ready(artifact, release)
            asked = self._artifacts.signatures.asked(artifact) if artifact is not None else ""
            now = Situation(in_store=here, signatures=asked, first=True)
        else:
            current, now = lane.app.current, situation(lane.app, spec, release)
            if (way := way_to(lane.app, spec, release)).blocked:
                return {"action": "fail", "reason": str(way.failure()), "version": spec.version, "steps": []}
        outcome = plan(spec, replace(now, paused=None, frozen=None))
        if isinstance(outcome, NoChange):
            return {"action": "none", "reason": outcome.reason, "version": spec.version, "steps": []}
        return {
            "action": "update" if current else "install",
            "reason": outcome.reason,
            "version": spec.version,
            "steps": [
                {"name": s.name, "kind": s.kind, "reason": s.reason, "needs": list(s.needs)}
                for s in outcome.steps
            ],
            **after(spec, outcome),
            "files": _diff(current.spec if current else None, spec),
        }

    async def history(self, *, app: str = "", limit: int = 20) -> Sequence[Mapping[str, Any]]:
        """Past runs, newest first."""
        return await self._journal.history(app=app, limit=limit)

    async def failed_syncs(self, limit: int = 20) -> Sequence[Mapping[str, Any]]:
        """Syncs that failed before any run, newest first."""
        return await self._journal.failed_syncs(limit)

    async def processes(self) -> Sequence[Mapping[str, Any]]:
        """Every process of ours and of the apps."""
        return await self._table.rows()

    async def doctor(self) -> Mapping[str, Any]:
        """What may be wrong with the host."""
        return await self._examine()

    async def stored(self) -> Mapping[str, Any]:
        """What the store holds."""
        return await self._upkeep.listed()

    async def verify_release(self, release: str, *, repair: bool) -> Mapping[str, Any]:
        """Whether a release is what was unpacked; with `repair` it is afterwards."""
        return await self._upkeep.verify(release, repair=repair)

    async def collect(self, *, dry_run: bool) -> Mapping[str, Any]:
        """Remove what nobody needs."""
        return await self._upkeep.gc(dry_run=dry_run)

    async def logs(self, app: str, lines: int = 200) -> Sequence[Line]:
        """The last lines that an app's programs (app "": all apps') said."""
        return await self._said.last(app, lines)

    def following(
        self, app: str, lines: int = 200
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Line]]]:
        """The last lines, then new ones as they come."""
        return self._said.following(app, lines)

    def _lane(self, app: str) -> Lane:
        lanes = self._lanes.live()
        if app not in lanes:
            raise UnknownApp(f"no app {app!r}; there are: {', '.join(lanes) or 'none'}")
        return lanes[app]


def _diff(old: AppSpec | None, new: AppSpec) -> dict[str, list[str]]:
    """Unified diffs of the rendered files that change, bounded; of those with secrets only that they do.

    Their values would be masked, but not what a template made of them.
    """
    hidden = {f.target for spec in (old, new) if spec is not None for f in spec.files if f.secret}
    before = {f.target: f.content for f in old.files} if old is not None else {}
    after = {f.target: f.content for f in new.files}
    found = {}
    for target in sorted(before.keys() | after.keys()):
        if target in hidden:
            if before.get(target) != after.get(target):
                found[target] = ["changes; it holds secrets, so how is not shown"]
            continue
        was, will = (side.get(target, b"").decode(errors="replace").splitlines() for side in (before, after))
        lines = list(difflib.unified_diff(was, will, "now", "planned", lineterm=""))
        if lines:
            found[target] = lines[:DIFF_LINES]
    return found
