"""Drift: managed files and links that somebody changed on this host, found by looking now and then.

    as wanted --changed--> drifted --repair--> a run puts it right --> as wanted
                              |  ^                    +--changed again: at most 5 times in 10 minutes,
                              |  +-----------------------  then it is only told, until the time is over
                              +--report--> told until it is right again

A look compares what is on disk with what was rendered, and does nothing while a run is under way, or the
operator wants no changes. What it finds is put right by a run like any other: it is in the history.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from agent.deploy.deployments import Deployment
from agent.deploy.failures import as_info
from agent.deploy.generations import Seen, drifted
from agent.deploy.places import view_is_whole
from agent.deploy.services import AS_WANTED, AppContext
from agent.deploy.unfinished import Unfinished
from agent.deploy.wish import Wish
from agent.domain.errors import OperatorNeeded
from agent.domain.events import DriftFound
from agent.domain.spec import AppSpec

REPAIRS = 5
WINDOW = 600.0  # seconds in which so many repairs may be made
_FEW = 4


class Drift:
    """Looks after the files of one app.

    Args:
        app: the app.
        idle: whether nothing is under way, and nothing waits to be.
        want: takes the wish for a repair.
    """

    def __init__(self, app: AppContext, idle: Callable[[], bool], want: Callable[[Wish], None]) -> None:
        self._app = app
        self._idle = idle
        self._want = want
        self._changed = asyncio.Event()
        self._known: tuple[str, tuple[str, ...]] = ("", ())  # the specification, and what was told of it
        self._repairs: list[float] = []
        self._seen: Seen = {}

    def changed(self) -> None:
        """Another specification may serve now."""
        self._changed.set()

    async def watch(self) -> NoReturn:
        """Look again and again."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(self._period()):
                    await self._changed.wait()
            except TimeoutError:
                try:
                    await self._look()
                except (OSError, OperatorNeeded) as error:
                    self._app.failed(as_info(error, "drift"))

    def _deployment(self) -> Deployment | None:
        """What serves: also when its files are gone altogether, so that `current` names nothing whole."""
        child = self._app.serving.child
        if child is not None:
            return child.deployment
        current = self._app.current
        return current if current is not None and self._app.placed else None

    def _period(self) -> float | None:
        deployment = self._deployment()
        if deployment is None or not _has_files(deployment.spec):
            return None
        return deployment.spec.drift.every

    async def _look(self) -> None:
        deployment = self._deployment()
        if deployment is None or not self._idle():
            return
        found = await asyncio.to_thread(self._find, deployment)
        if self._deployment() is not deployment or not self._idle():
            return  # a run has begun meanwhile: nothing of this is known to hold
        spec = deployment.spec
        if not found:
            self._known = (spec.digest, ())
            self._app.condition("Drifted", False, AS_WANTED)
            return
        told = f"{', '.join(found[:_FEW])}{f' and {len(found) - _FEW} more' if len(found) > _FEW else ''}"
        repair = spec.drift.action == "repair" and self._app.services.paused() is None
        if repair and self._spent():
            message = f"{told}; put right {REPAIRS} times in {WINDOW / 60:g} minutes and changed again"
            self._app.condition("Drifted", True, "RepairsSpent", message)
            repair = False
        else:
            self._app.condition("Drifted", True, "FilesChanged", told)
        if repair or self._known != (spec.digest, found):
            self._app.services.bus.publish(DriftFound(self._app.name, found, repair))
        self._known = (spec.digest, found)
        if repair:
            self._repairs.append(time.monotonic())
            wish = Unfinished.nobodys(spec, deployment.pair.commit)
            wish.drifted = found
            self._want(wish)

    def _find(self, deployment: Deployment) -> tuple[str, ...]:
        spec, surroundings = deployment.spec, self._app.services.processes.surroundings
        found: list[str] = []
        if deployment.generation is not None:
            owner = surroundings.owner(spec)
            found += drifted(deployment.generation, spec.files, owner, self._seen_of(deployment.generation))
        if spec.places:
            found += surroundings.places(spec.name).drifted(spec.places)
            if not view_is_whole(deployment):
                found.append("what the places show")
        return tuple(found)

    def _seen_of(self, generation: Path) -> Seen:
        """What is remembered of this generation; of another one nothing."""
        if any(generation not in path.parents for path in self._seen):
            self._seen.clear()
        return self._seen

    def _spent(self) -> bool:
        now = time.monotonic()
        self._repairs = [at for at in self._repairs if now - at < WINDOW]
        return len(self._repairs) >= REPAIRS


def _has_files(spec: AppSpec) -> bool:
    return spec.drift.action != "ignore" and bool(spec.files or spec.places)
