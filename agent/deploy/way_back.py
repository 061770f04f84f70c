"""Whether a release can run on today's data, and what has to be done first if it cannot.

free     nothing was done to the data since that it could not bear: a flip
downs    only reversible migrations were, and `rollback: {down: true}` lets their down run first
blocked  anything else: what serves, or the page, stays; a person is told why and what to do
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.deploy.deployments import Deployment
from agent.deploy.ledger import Entry, Ledger, Word
from agent.deploy.migrating import Work, down, longest, up
from agent.deploy.processes import Processes
from agent.domain.errors import OperatorNeeded
from agent.domain.model import new_id
from agent.domain.spec import AppSpec, MigrationKind, MigrationSpec

SCHEMA_TOO_NEW = "SchemaTooNew"


@dataclass(frozen=True, slots=True)
class WayBack:
    """See the module. `downs` are names of migrations, in the order in which they are taken back."""

    downs: tuple[str, ...] = ()
    blocked: str = ""
    entries: tuple[Entry, ...] = ()

    def failure(self) -> OperatorNeeded:
        """Why it is blocked, and what to do."""
        return OperatorNeeded(SCHEMA_TOO_NEW, self.blocked, where="migrate", remedy=REMEDY)


FREE = WayBack()
REMEDY = (
    "push a version that runs on the data as they are; or bring the data back yourself, push the old version,"
    " and `emptybox sync --override WHY`"
)


def way_back(
    ledger: Ledger, app: str, release: str, version: str, leaving: AppSpec | None, allowed: bool
) -> WayBack:
    """The way to a release.

    Args:
        ledger: what was done.
        app: the app's name.
        release: the release that is to run, as the ledger calls it.
        version: its version, for people.
        leaving: the specification that brought the newest data, whose downs could run.
        allowed: whether they may.
    """
    ahead = ledger.ahead(app, release)
    if not ahead:
        return FREE
    names = tuple(dict.fromkeys(entry.name for entry in ahead))
    reversible = all(entry.kind is MigrationKind.REVERSIBLE for entry in ahead)
    there = leaving is not None and all(_with_down(leaving, name) is not None for name in names)
    if reversible and there and allowed:
        return WayBack(names, "", tuple(ahead))
    first = next((entry for entry in ahead if entry.kind is not MigrationKind.REVERSIBLE), ahead[0])
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(first.began))
    what = "ran" if first.word is Word.DONE else "was begun"
    told = f"version {version} cannot run on today's data: {first.told} {what} on {at}"
    if reversible:
        told += "; its down may run only with rollback: {down: true}" if there else "; its down is not there"
    return WayBack((), told, tuple(ahead))


def _with_down(spec: AppSpec, name: str) -> MigrationSpec | None:
    """The migration of this name, if it can be taken back."""
    found = next((m for m in spec.migrate if m.name == name), None)
    if found is None or found.kind is not MigrationKind.REVERSIBLE or not (found.sql or found.down):
        return None
    return found


def longest_way(spec: AppSpec) -> float:
    """Seconds that taking back all that a specification can take back may take."""
    return 60.0 + sum(longest(m) for m in spec.migrate if _with_down(spec, m.name) is not None)


@asynccontextmanager
async def _work(processes: Processes, ledger: Ledger, deployment: Deployment) -> AsyncIterator[Work]:
    """A directory of its own to run in: that of the program may be gone. Raises OSError."""
    instance: Path = await processes.surroundings.instance(deployment, new_id("i"))
    try:
        yield Work(processes=processes, ledger=ledger, deployment=deployment, instance=instance)
    finally:
        await processes.surroundings.remove_instance(instance)


async def take_back(
    processes: Processes,
    ledger: Ledger,
    leaving: Deployment,
    way: WayBack,
    version: str,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Run the downs of a way, from the deployment that is left; nobody runs. Raises Failure, OSError."""
    async with _work(processes, ledger, leaving) as work:
        for name in way.downs:
            migration = _with_down(leaving.spec, name)
            assert migration is not None
            tell(name)
            entries = [entry for entry in way.entries if entry.name == name]
            await down(work, migration, f"down {name}", entries, version)


async def bring_forward(
    processes: Processes, ledger: Ledger, deployment: Deployment, names: list[str]
) -> None:
    """Run migrations again that were taken back: their deployment is to serve on. Raises Failure, OSError."""
    async with _work(processes, ledger, deployment) as work:
        for migration in deployment.spec.migrate:
            if migration.name in names:
                await up(work, migration, f"migrate {migration.name}")


def vouch(ledger: Ledger, way: WayBack) -> None:
    """An operator says that the data are fit for the release."""
    for entry in way.entries:
        ledger.end(entry, Word.UNDONE, durable=False)
