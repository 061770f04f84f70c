"""`emptybox store`: what the store of releases holds, whether it is right, and what may go.

A running agent is asked, which knows what it uses just now. Without one the data directory is looked at
from here; what changes something takes the agent's own lock first, so that no agent begins meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from agent.cli import options, words
from agent.cli.client import Agent, Unreachable
from agent.cli.exit_codes import FAILED, NOT_NOW, OK
from agent.cli.screen import busy
from agent.cli.words import Json, bad, clean, dim

_VERDICTS = {"ok": "green", "repaired": "yellow", "unknown": "yellow", "changed": "red"}


class NotNow(click.ClickException):
    """The store cannot be looked after at the moment."""

    exit_code = NOT_NOW


@click.group(epilog=options.example("emptybox store ls", "emptybox store verify --repair"))
def command() -> None:
    """Look after the store of releases: what is in it, whether it is right, what may go.

    A running agent is asked; without one this command looks into the data directory itself.
    """


@command.command("ls", epilog=options.example("emptybox store ls", "emptybox store ls --json"))
@options.as_json
@options.agent
def ls(agent: Agent, as_json: bool) -> None:
    """List the releases: what each takes, and who needs it."""
    found = _listed(agent)
    if as_json:
        words.print_json({"releases": found["releases"]})
        return
    table = [("RELEASE", "FILES", "SIZE", "ON DISK", "SINCE", "FOR"), *map(_row, found["releases"])]
    for number, line in enumerate(_columns(table, right=(1, 2, 3))):
        click.echo(dim(line) if number == 0 else line)


@command.command("du", epilog=options.example("emptybox store du", "emptybox store du --json"))
@options.as_json
@options.agent
def du(agent: Agent, as_json: bool) -> None:
    """Tell what the store takes on disk. What several releases have in common is counted once."""
    found = _listed(agent)
    if as_json:
        words.print_json({name: value for name, value in found.items() if name != "releases"})
        return
    table = [("PART", "FILES", "SIZE", "ON DISK")]
    table += [
        (clean(name), str(part["files"]), words.size(part["bytes"]), words.size(part["disk"]))
        for name, part in found["parts"].items()
    ]
    for number, line in enumerate(_columns(table, right=(1, 2, 3))):
        click.echo(dim(line) if number == 0 else line)
    click.echo(f"{words.size(found['disk'])} in {clean(found['root'])}, {words.size(found['free'])} free")


@command.command(
    "verify", epilog=options.example("emptybox store verify", "emptybox store verify --repair RELEASE")
)
@click.argument("releases", nargs=-1, metavar="[RELEASE]...")
@click.option(
    "--repair",
    is_flag=True,
    help="Fetch again what was changed, file by file; programs go on. Needs the agent.",
)
@options.as_json
@options.agent
def verify(agent: Agent, releases: tuple[str, ...], repair: bool, as_json: bool) -> int:
    """Read releases (all, when none is named) and compare them with what was unpacked.

    Files that were changed on this host make it exit with 1, unless they were repaired. What does not belong
    to a release is told, and left alone: a program may have written it.
    """
    names = releases or tuple(row["release"] for row in _listed(agent)["releases"])
    told: list[Json] = []
    for number, name in enumerate(names, start=1):
        with busy(f"{number} of {len(names)}: reading {clean(name)} ..."):
            told.append(_verified(agent, name, repair=repair))
        if not as_json:
            for line in _verdict(told[-1]):
                click.echo(line)
    if as_json:
        words.print_json({"releases": told})
    return FAILED if any(one["verdict"] == "changed" for one in told) else OK


@command.command("gc", epilog=options.example("emptybox store gc --dry-run", "emptybox store gc"))
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@options.as_json
@options.agent
def gc(agent: Agent, dry_run: bool, as_json: bool) -> None:
    """Remove the releases nobody needs: what serves, is wanted or was good stays, and `keep` others an app.

    The agent does this by itself after each deploy.
    """
    with busy("removing ..." if not dry_run else "looking ..."):
        try:
            _, told = agent.post("/store/gc", {"dry_run": dry_run}, wait=True)
        except Unreachable as error:
            told = _here(error, lambda upkeep: upkeep.gc(dry_run=dry_run), change=True)
    if as_json:
        words.print_json(told)
        return
    for row in told["removed"]:
        verb = "would go" if dry_run else "removed"
        click.echo(f"{verb}: {clean(row['release'])} ({words.size(row['bytes'])})")
    if not told["removed"]:
        click.echo("nothing to remove")
    click.echo(f"{words.size(told['free'])} free")


def _listed(agent: Agent) -> Json:
    with busy("looking ..."):
        try:
            return agent.get("/store")
        except Unreachable as error:
            found: Json = _here(error, lambda upkeep: upkeep.listed(), change=False)
            return found


def _verified(agent: Agent, release: str, *, repair: bool) -> Json:
    try:
        _, told = agent.post("/store/verify", {"release": release, "repair": repair}, wait=True)
    except Unreachable as error:
        if repair:
            raise  # the agent knows where from
        told = _here(error, lambda upkeep: upkeep.verify(release, repair=False), change=True)
    return told


def _here(error: Unreachable, work: Callable[[Any], Awaitable[Any]], *, change: bool) -> Any:
    """Do it without an agent, on the data directory of the settings in EMPTYBOX_ variables."""
    from agent.config import ConfigError, load
    from agent.domain.control import NotPossible
    from agent.domain.errors import Failure

    try:
        settings = load([], os.environ, need_repo=False)
    except ConfigError as problem:
        raise click.UsageError("\n".join(problem.problems)) from None
    if not (settings.data / "store" / "trees").is_dir():
        raise error
    try:
        with _upkeep(settings, change=change) as upkeep:
            return asyncio.run(_awaited(work(upkeep)))
    except (NotPossible, Failure, OSError) as problem:
        raise NotNow(str(problem)) from None


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


@contextmanager
def _upkeep(settings: Any, *, change: bool) -> Iterator[Any]:
    from agent.artifact.store import Store
    from agent.deploy.layout import DataDirectory
    from agent.deploy.upkeep import Bounds, Upkeep, users_on_disk

    data = DataDirectory(settings.data)
    if change:
        data.open()
    try:
        store = Store(data.store)
        if change:
            store.sweep()
        yield Upkeep(store, users_on_disk(data), Bounds(settings.keep_age, settings.store_size))
    finally:
        data.close()


def _row(row: Json) -> tuple[str, ...]:
    uses = []
    for use in row["apps"]:
        marks = f" ({', '.join(use['is'])})" if use["is"] else ""
        uses.append(f"{clean(use['app'])} {clean(use['version'])}{marks}")
    return (
        clean(row["release"]),
        str(row["files"]),
        words.size(row["bytes"]),
        words.size(row["disk"]),
        words.ago(row["since"]),
        ", ".join(uses) or "nobody",
    )


def _verdict(told: Json) -> Iterator[str]:
    verdict = clean(told["verdict"])
    mark = click.style(verdict.ljust(8), fg=_VERDICTS.get(verdict))
    note = f"{told['files']} files, {words.size(told['read'])}"
    if verdict == "unknown":
        note = "made by an earlier version, which kept no record"
    yield f"{mark} {clean(told['release'])}  {note}"
    for kind in ("changed", "extra"):
        names, count = told[kind], told[f"{kind}_count"]
        for name in names:
            line = f"  {'changed' if kind == 'changed' else 'not of it'}: {clean(name)}"
            yield bad(line) if kind == "changed" and verdict == "changed" else line
        if count > len(names):
            yield f"  and {count - len(names)} more"


def _columns(table: Sequence[Sequence[str]], right: Sequence[int]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
