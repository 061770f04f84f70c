"""`emptybox logs`: what apps said, and what they say."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import click

from agent.cli import options, words
from agent.cli.client import Agent, Unreachable
from agent.cli.exit_codes import OK
from agent.cli.words import Json, clean, dim

AWAY = 15.0  # seconds the agent may be away while it is followed (it is started again)
LOOK = 0.3  # seconds between two tries meanwhile


@click.command(
    epilog=options.example("emptybox logs web -n 50", "emptybox logs -f", "emptybox logs web -t --json")
)
@click.argument("app", default="", metavar="[APP]", shell_complete=options.apps)
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines as they come, until Ctrl-C.")
@click.option(
    "--lines", "-n", type=click.IntRange(1, 100_000), default=200, show_default=True, help="How many."
)
@click.option("--times", "-t", is_flag=True, help="Show when each line came (UTC).")
@options.as_json
@options.agent
def command(agent: Agent, app: str, follow: bool, lines: int, times: bool, as_json: bool) -> int:
    """Show the last lines that the programs of APP (default: of all apps) said.

    Lines are kept over restarts of apps and agent, as --app-log-size and --app-log-files of emptybox run
    say. With --json and --follow each line is an object.
    """
    if follow:
        try:
            for line in _followed(agent, app, lines):
                click.echo(json.dumps(line, ensure_ascii=False) if as_json else _shown(line, app, times))
        except KeyboardInterrupt:
            pass
        return OK
    answer = agent.get("/logs", app=app, lines=lines)
    if as_json:
        words.print_json(answer)
        return OK
    said = answer.get("lines") or []
    for line in said:
        click.echo(_shown(line, app, times))
    if not said:
        click.echo(f"{app or 'no app'} has said nothing yet", err=True)
    return OK


def _shown(line: Json, app: str, times: bool) -> str:
    source = clean(line.get("source") or line.get("app") or "")
    whose = "" if source == app else f"{dim(source)} | "
    at = f"{dim(clean(line['at']))} " if times and line.get("at") else ""
    return f"{at}{whose}{clean(line.get('text', ''))}"


def _followed(agent: Agent, app: str, count: int) -> Iterator[Json]:
    """Lines without an end; an agent that is away for a moment is waited for, and asked what was missed."""
    seen: str | None = None  # when the newest line came; None while nothing was heard
    gone = 0.0
    while True:
        missed = seen
        try:
            for line in agent.stream("/logs", app=app, lines=count, follow=1):
                gone, at = 0.0, str((line or {}).get("at") or "")
                if line and (missed is None or at > missed):
                    yield line
                seen = max(seen or "", at)
            again = Unreachable("the agent ended the stream")
        except Unreachable as error:
            if seen is None:
                raise
            again = error
        gone = gone or time.monotonic()
        if time.monotonic() - gone > AWAY:
            raise again
        time.sleep(LOOK)
