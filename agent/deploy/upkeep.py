"""Looking after the store: what is in it and for whom, whether it is right, and what may go.

For a running agent and for a command line without one: who the apps are is asked for (`Users`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from agent.artifact.inspection import Findings
from agent.artifact.mending import looked
from agent.artifact.pipeline import Stopped
from agent.artifact.store import Store
from agent.artifact.usage import Size, measure
from agent.deploy.deployments import Deployment, Deployments
from agent.deploy.layout import AppDirectory, DataDirectory
from agent.deploy.retention import Kept, surplus
from agent.domain.control import NotPossible
from agent.domain.spec import AppSpec
from agent.kit.clock import rfc3339
from agent.kit.threads import settled

log = logging.getLogger(__name__)

NAMES_MOST = 20  # changed or extra files that are named
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class User:
    """An app with its deployments: `marks` say what those spec digests are that must stay.

    `busy`: a run is under way, which may need any of them.
    """

    deployments: Deployments
    marks: Mapping[str, Collection[str]]
    busy: bool = False


Users = Callable[[], Mapping[str, User]]
Check = Callable[[], None]
Repair = Callable[[AppSpec, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a host: deployments nobody needs go when older (seconds), or while releases take more (bytes).

    0 is no bound.
    """

    age: float
    bytes: int


class Upkeep:
    """Of one store.

    Args:
        store: the store.
        users: every app that is here.
        bounds: the host's.
        repair: fetches what was changed in a release again (see `Wholeness.repaired`); None: nobody can.
    """

    def __init__(self, store: Store, users: Users, bounds: Bounds, repair: Repair | None = None) -> None:
        self._store = store
        self._users = users
        self._bounds = bounds
        self._repair = repair

    async def collect(self) -> list[str]:
        """Remove what is beyond the bounds, and releases nobody names; returns their ids. Raises OSError."""
        for one in await self._surplus():
            log.info("%s: deployment %s is beyond --keep-age or --store-size", one.app, one.spec[:12])
            self._users()[one.app].deployments.drop(one.spec)
        return await self._store.collect(self._named())

    async def listed(self) -> Json:
        """Every release: its size, for whom it is there; and what the store takes together."""
        users = self._users()
        found: Json = await self._in_thread(lambda check: self._listed(_uses(users), check))
        return found

    async def verify(self, release: str, *, repair: bool) -> Json:
        """Read a whole release and compare it with what was unpacked.

        Raises LookupError, NotPossible, Failure (with `repair`, when it cannot be fetched again), OSError.
        """
        if release not in self._store.releases():
            raise NotPossible(f"no release {release!r} is in the store; `emptybox store ls` shows them")
        with self._store.using(release):
            found: Findings = await self._in_thread(
                lambda stop: looked(self._store, release, True, stop), stop=True
            )
            mended = False
            if repair and found.known and not found.whole:
                await self._mend(release)
                mended = True
        return _told(release, found, mended)

    async def _mend(self, release: str) -> None:
        deployment = next((d for d, _ in _uses(self._users()).get(release, ())), None)
        if deployment is None or self._repair is None:
            raise NotPossible(
                f"nobody here can fetch {release} again; `emptybox store gc` removes what no app has"
            )
        await self._repair(deployment.spec, release)

    async def gc(self, *, dry_run: bool) -> Json:
        """Remove what nobody needs, or only say what that is. Raises OSError."""
        counted: set[tuple[int, int]] = set()
        surplus_of = {one.spec for one in await self._surplus()}
        named = self._named(without=surplus_of)
        going = [name for name in self._store.releases() if name not in named and not self._store.used(name)]
        sizes = await self._in_thread(
            lambda check: {name: measure(self._store.path(name), counted, check) for name in going}
        )
        removed = going if dry_run else await self.collect()
        told = [{"release": name, "bytes": sizes[name].bytes} for name in removed if name in sizes]
        return {"removed": told, "dry_run": dry_run, "free": _free(self._store.root)}

    # -- who needs what ------------------------------------------------------------------------------

    def _named(self, without: Collection[str] = ()) -> set[str]:
        return {
            release
            for release, uses in _uses(self._users()).items()
            if any(deployment.pair.spec not in without for deployment, _ in uses)
        }

    async def _surplus(self) -> list[Kept]:
        bounds = self._bounds
        if not bounds.age and not bounds.bytes:
            return []
        now, kept = time.time(), []
        for name, user in self._users().items():
            needed = {spec for specs in user.marks.values() for spec in specs}
            for one in user.deployments.all():
                age = max(0.0, now - max(one.pair.since, one.path.stat().st_mtime))
                needs = user.busy or one.pair.spec in needed
                kept.append(Kept(name, one.pair.spec, one.pair.release, age, needs))
        sizes: dict[str, int] = {}
        if bounds.bytes:
            counted: set[tuple[int, int]] = set()
            names = sorted({one.release for one in kept if one.release})
            sizes = await self._in_thread(
                lambda check: {n: measure(self._store.path(n), counted, check).disk for n in names}
            )
        return surplus(kept, sizes, most_age=bounds.age, most_bytes=bounds.bytes)

    # -- sizes -----------------------------------------------------------------------------------------

    def _listed(self, uses: Mapping[str, Sequence[tuple[Deployment, list[str]]]], check: Check) -> Json:
        counted, together = set[tuple[int, int]](), Size()
        rows: list[Json] = []
        for name in self._store.releases():
            size = measure(self._store.path(name), counted, check)
            together += size
            rows.append(
                {
                    "release": name,
                    "files": size.files,
                    "bytes": size.bytes,
                    "disk": size.disk,
                    "since": rfc3339(self._store.path(name).lstat().st_mtime),
                    "layers": self._store.layers_of(name),
                    "apps": [_use(deployment, marks) for deployment, marks in uses.get(name, ())],
                }
            )
        parts = {part: measure(self._store.root / part, counted, check) for part in self._store.parts}
        return {
            "root": str(self._store.root),
            "releases": rows,
            "parts": {
                "releases": _size(together),
                **{name: _size(size) for name, size in parts.items()},
            },
            "disk": together.disk + sum(size.disk for size in parts.values()),
            "free": _free(self._store.root),
        }

    async def _in_thread(self, work: Callable[[Any], Any], *, stop: bool = False) -> Any:
        """Run `work` in a thread with a function that ends it early, or with `stop` the Event itself."""
        ending = Event()

        def check() -> None:
            if ending.is_set():
                raise Stopped

        job = asyncio.get_running_loop().run_in_executor(None, work, ending if stop else check)
        return await settled(job, on_cancel=ending.set)


def _uses(users: Mapping[str, User]) -> dict[str, list[tuple[Deployment, list[str]]]]:
    """By release: the deployments that name it, with their marks."""
    uses: dict[str, list[tuple[Deployment, list[str]]]] = {}
    for user in users.values():
        for deployment in user.deployments.all():
            marks = [mark for mark, specs in user.marks.items() if deployment.pair.spec in specs]
            uses.setdefault(deployment.pair.release, []).append((deployment, marks))
    return uses


def users_on_disk(data: DataDirectory) -> Users:
    """Every app that has deployments, where no agent runs: all of them may be wanted."""

    def users() -> dict[str, User]:
        found = {}
        for path in sorted(data.apps.iterdir()):
            deployments = Deployments(AppDirectory(data, path.name))
            marks = {link: _linked(deployments, link) for link in ("current", "good")}
            found[path.name] = User(deployments, marks)
        return found

    return users


def _linked(deployments: Deployments, link: str) -> list[str]:
    deployment = deployments.linked(link)
    return [deployment.pair.spec] if deployment is not None else []


def _use(deployment: Deployment, marks: Sequence[str]) -> Json:
    pair = deployment.pair
    return {"app": deployment.spec.name, "version": pair.version, "spec": pair.spec, "is": list(marks)}


def _size(size: Size) -> Json:
    return {"files": size.files, "bytes": size.bytes, "disk": size.disk}


def _free(root: Path) -> int:
    space = os.statvfs(root)
    return space.f_bavail * space.f_frsize


def _told(release: str, found: Findings, mended: bool) -> Json:
    verdict = "unknown" if not found.known else "ok" if found.whole else "repaired" if mended else "changed"
    return {
        "release": release,
        "verdict": verdict,
        "files": found.files,
        "read": found.read,
        "changed": [os.fsdecode(path) for path in found.changed[:NAMES_MOST]],
        "changed_count": len(found.changed),
        "extra": [os.fsdecode(path) for path in found.extra[:NAMES_MOST]],
        "extra_count": len(found.extra),
    }
