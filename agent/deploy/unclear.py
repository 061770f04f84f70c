"""Migrations that the last agent did not see the end of: found out before anything is started on the data.

| found | done |
|---|---|
| the migration is still under way | it is waited for; who comes meanwhile gets the page |
| it has ended since | its exit code and its answer go into the ledger |
| nothing of it, and a database that has a history | the database is asked |
| nothing of it, and no such database, or no answer | nobody knows: it counts as done, and runs again |

Those two are told as failed before anybody is asked: nothing stays running because its version never comes
again. The same holds for a down; what may be half undone counts as done for older releases, and as undone
for its own.
"""

from __future__ import annotations

import logging

from agent.deploy.deployments import Deployment
from agent.deploy.ledger import Entry, Ledger, Word, identity_of, release_of
from agent.deploy.migrating import Work, look, settle_answer, settle_command
from agent.deploy.services import AppContext
from agent.domain.errors import Failure
from agent.domain.model import new_id
from agent.domain.spec import MigrationKind, MigrationSpec
from agent.migrator.order import read_answer

log = logging.getLogger(__name__)


async def settle_migrations(app: AppContext) -> None:
    """End the commands of the last agent and write down how migrations ended. Raises Failure."""
    ledger = app.services.journal.ledger
    open_entries = {entry.number: entry for entry in ledger.of(app.name) if entry.unseen}
    for number, result in await app.services.processes.leftovers.end_commands(app.name):
        entry = open_entries.pop(number, None)
        if entry is None:
            continue
        answer = read_answer(result.log)
        if entry.word is Word.UNDOING:
            if answer.outcome == "done" if answer is not None else result.ok:
                await _undone(ledger, entry, open_entries)
            else:
                open_entries[number] = entry
        elif answer is not None:
            await settle_answer(ledger, entry, answer)
        elif (found := _brought_by(app, entry)) is None or not found[1].database:
            await settle_command(ledger, entry, result, touched=False)
        else:
            open_entries[number] = entry
    for entry in open_entries.values():
        ledger.cut_short(entry)
        await _ask(app, entry)


async def _undone(ledger: Ledger, entry: Entry, open_entries: dict[int, Entry]) -> None:
    """A down takes back all that the ledger has under its name."""
    for each in [entry, *open_entries.values()]:
        if each.word is Word.UNDOING and each.name == entry.name:
            open_entries.pop(each.number, None)
            await ledger.end(each, Word.UNDONE)


async def _ask(app: AppContext, entry: Entry) -> None:
    """Ask the database what it knows of a migration that nobody saw the end of."""
    found, ledger = _brought_by(app, entry), app.services.journal.ledger
    if found is None or not found[1].database:
        return
    deployment, migration = found
    processes = app.services.processes
    try:
        instance = await processes.surroundings.instance(deployment, new_id("i"))
        try:
            work = Work(processes=processes, ledger=ledger, deployment=deployment, instance=instance)
            answer = await look(work, migration, f"migrate {entry.name} (what was done)")
        finally:
            await processes.surroundings.remove_instance(instance)
    except (Failure, OSError) as error:
        log.warning("%s: what %s did is not to be found out: %s", app.name, entry.told, error)
        return
    if answer is None:
        return
    reversible = entry.kind is MigrationKind.REVERSIBLE  # maybe its down was cut short
    if answer.applied and not answer.pending:
        await ledger.end(entry, Word.DONE)
    elif not answer.applied:
        await ledger.end(entry, Word.UNDONE if reversible else Word.NOTHING)
    elif not reversible:
        await ledger.end(entry, Word.FAILED)


def _brought_by(app: AppContext, entry: Entry) -> tuple[Deployment, MigrationSpec] | None:
    """A deployment on disk with this very work: another command, or database, knows nothing of it."""
    for deployment in app.deployments.all():
        for migration in deployment.spec.migrate:
            if identity_of(migration, release_of(deployment.pair)) == entry.identity:
                return deployment, migration
    return None
