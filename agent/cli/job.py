"""`emptybox job`: runs of jobs, asked for, stopped and looked at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from agent.cli import options, words
from agent.cli.client import Agent, Unreachable
from agent.cli.exit_codes import FAILED, OK
from agent.cli.words import clean, dim

AWAY = 60.0  # seconds that an agent may be away while its job is waited for
FIRST_LOOK, LONGEST_LOOK = 0.05, 2.0  # seconds between two looks


@click.group(epilog=options.example("emptybox job run nightly-report", "emptybox job runs nightly-report"))
def command() -> None:
    """Begin runs of jobs, stop them, and show past ones."""


@command.command(
    "run",
    epilog=options.example("emptybox job run nightly-report", "emptybox job run nightly-report DAY=monday"),
)
@click.argument("app", shell_complete=options.apps)
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--wait/--no-wait", default=True, help="Wait for its end (the default), or only begin it.")
@options.as_json
@options.agent
def run(agent: Agent, app: str, parameters: Sequence[str], wait: bool, as_json: bool) -> int:
    """Begin a run of the job APP now, print what it says once it has ended, and exit as it did.

    Parameters are those that the state declares.
    """
    given = dict(_pair(text) for text in parameters)
    _, told = agent.post("/job/run", {"app": app, "parameters": given})
    if wait:
        told |= _end(agent, app, str(told["run"]))
    if as_json:
        words.print_json(told)
    elif "output" in told:
        for line in told["output"] or []:
            click.echo(clean(line))
        click.echo(f"run {told['run']}: {told['result']}{_why(told)}", err=True)
    else:
        click.echo(f"run {told['run']} {told.get('result') or 'begins'}")
    return _code(told)


@command.command("stop", epilog=options.example("emptybox job stop nightly-report"))
@click.argument("app", shell_complete=options.apps)
@options.agent
def stop(agent: Agent, app: str) -> int:
    """Stop the runs of the job APP that are under way."""
    agent.post("/job/stop", {"app": app})
    click.echo(f"{app}: asked to stop")
    return OK


@command.command(
    "runs", epilog=options.example("emptybox job runs", "emptybox job runs nightly-report --output")
)
@click.argument("app", default="", metavar="[APP]", shell_complete=options.apps)
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Runs to show.")
@click.option("--output", is_flag=True, help="Show what each said, too.")
@options.as_json
@options.agent
def runs(agent: Agent, app: str, limit: int, output: bool, as_json: bool) -> None:
    """Show runs of jobs, newest first, and times at which none began."""
    told = agent.get("/jobs", app=app, limit=limit)
    if as_json:
        words.print_json(told)
        return
    for row in told.get("jobs") or []:
        count = f" {row['count']} times" if row.get("count", 1) > 1 else ""
        heading = (
            words.local(row.get("started") or row.get("due")),
            clean(row.get("app", "")).ljust(14),
            dim(clean(row.get("id", ""))),
            clean(row.get("cause", "")).ljust(8),
            words.word(row.get("result", ""), 11) + count,
            words.seconds(row.get("seconds")).rjust(9),
            _why(row).lstrip(": "),
        )
        click.echo("  ".join(heading).rstrip())
        for line in (row.get("output") or []) if output else []:
            click.echo(f"    {clean(line)}")
    if not told.get("jobs"):
        click.echo(f"no runs of {app} yet" if app else "no runs of jobs yet")


def _end(agent: Agent, app: str, run: str) -> dict[str, Any]:
    """The run once it has ended; an agent that is started again meanwhile is waited for."""
    away, pause = time.monotonic() + AWAY, FIRST_LOOK
    while True:
        try:
            found: dict[str, Any] = (agent.get("/jobs", app=app, run=run).get("jobs") or [{}])[0]
            if found.get("result") not in ("waiting", "running"):
                return found
            away = time.monotonic() + AWAY
        except Unreachable:
            if time.monotonic() > away:
                raise
        time.sleep(pause)
        pause = min(LONGEST_LOOK, pause * 1.5)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise click.UsageError(f"{text!r}: write a parameter as NAME=VALUE")
    return name, value


def _why(told: dict[str, Any]) -> str:
    failure = told.get("failure") or {}
    return f": {clean(failure.get('message', ''))}" if failure else ""


def _code(told: dict[str, Any]) -> int:
    """The program's own exit code; 128 and the signal's number, as a shell says it."""
    if told.get("result") in (None, "running", "succeeded"):
        return OK
    if told.get("signal"):
        return 128 + int(told["signal"])
    return int(told.get("code") or FAILED)
