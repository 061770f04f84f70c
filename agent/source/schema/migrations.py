"""`migrate` and `rollback`: what is done to data, and what that means for the way back."""

from __future__ import annotations

import re

from agent.domain.spec import MigrationKind, MigrationSpec
from agent.kit.mask import MASK
from agent.source.problems import shown
from agent.source.schema.place import Place
from agent.source.schema.scalars import Command, Duration, Raw
from agent.source.schema.secrets import Revealed
from agent.source.schema.steps import NAME, positive

MIGRATIONS_MAX = 50
_DATABASE = re.compile(r"(postgresql|postgres)://\S+|sqlite:\S+")
_VERSION = re.compile(r"[0-9]{1,20}([._][0-9]{1,20}){0,8}")


class Migration(Raw, frozen=True, kw_only=True):
    """One step of a schema: a command, or a directory of SQL files."""

    name: str | None = None
    command: Command | None = None
    sql: str | None = None
    database: str | None = None
    kind: MigrationKind | None = None
    down: Command | None = None
    baseline: str | None = None
    timeout: Duration | None = None


class Rollback(Raw, frozen=True, kw_only=True):
    """What the way back may do."""

    down: bool | None = None


def migration_specs(
    raw: list[Migration] | Migration | None, place: Place, secrets: Revealed
) -> tuple[MigrationSpec, ...]:
    """The migrations, in order. One alone may be written without the list and without a name."""
    if raw is None:
        return ()
    if isinstance(raw, Migration):
        return (_migration(raw, "migrate", place, secrets),)
    if len(raw) > MIGRATIONS_MAX:
        place.problem(f"more than {MIGRATIONS_MAX} migrations")
        return ()
    found: list[MigrationSpec] = []
    for index, migration in enumerate(raw):
        spec = _migration(migration, "migrate" if len(raw) == 1 else "", place / index, secrets)
        if spec.name and spec.name in [other.name for other in found]:
            (place / index / "name").problem(f"{shown(spec.name)} is the name of another migration")
        found.append(spec)
    return tuple(found)


def job_migrations(
    raw: list[Migration] | Migration | None, place: Place, secrets: Revealed
) -> tuple[MigrationSpec, ...]:
    """Those of a job, whose earlier version stays in place when they fail: it runs on what they leave."""
    found = migration_specs(raw, place, secrets)
    if any(migration.kind.breaking for migration in found) and place.sound:
        place.problem("a job's migrations are of kind expand or exclusive")
    return found


def _migration(raw: Migration, name: str, place: Place, secrets: Revealed) -> MigrationSpec:
    if raw.name is None and not name:
        place.missing("name", "each of several migrations has its own")
    if raw.name is not None and not NAME.fullmatch(raw.name):
        (place / "name").problem("a migration's name holds letters, digits, -, _ and .")
    kind = raw.kind or MigrationKind.EXPAND
    if raw.sql is None:
        if raw.command is None:
            place.missing("command", "or sql, a directory of SQL files")
        if raw.baseline is not None:
            (place / "baseline").problem("is for sql")
        if kind is MigrationKind.REVERSIBLE and raw.down is None and place.intact("kind"):
            place.missing("down", "the command that takes a reversible migration back")
    else:
        if raw.command is not None:
            (place / "command").problem("either sql or command, not both")
        if raw.down is not None:
            (place / "down").problem("is for commands; SQL files are taken back by U files beside them")
        if raw.database is None:
            place.missing("database", "the URL of the database that sql is for")
    if (
        raw.sql is None
        and raw.down is not None
        and kind is not MigrationKind.REVERSIBLE
        and place.intact("kind")
    ):
        (place / "down").problem("needs kind: reversible")
    return MigrationSpec(
        name=raw.name or name,
        command=(place / "command").command(raw.command),
        sql="" if raw.sql is None else (place / "sql").relative((place / "sql").render(raw.sql).rstrip("/")),
        database=_database(raw.database, (place / "database").seeing(secrets=secrets)),
        kind=kind,
        down=(place / "down").command(raw.down),
        baseline=_baseline(raw.baseline, place / "baseline"),
        timeout=positive(raw.timeout, MigrationSpec(name="").timeout, place / "timeout"),
    )


def _database(raw: str | None, place: Place) -> str:
    """A URL. Away from the host its secret is a mask, and nobody can say what it will be."""
    if raw is None:
        return ""
    url = place.render(raw)
    if place.sound and MASK not in url and not _DATABASE.fullmatch(url):
        place.problem("is no URL of a database; write postgresql://USER@HOST/NAME or sqlite:data/app.db")
    return url


def _baseline(raw: str | None, place: Place) -> str:
    if raw is None:
        return ""
    if not _VERSION.fullmatch(raw):
        place.problem("is a version like 3 or 1.2, or 0 for none")
    return raw
