"""`emptybox logs`: the last lines an app wrote."""

from __future__ import annotations

import click

from agent.cli import options, words
from agent.cli.client import Agent


@click.command(epilog=options.example("emptybox logs web -n 50"))
@click.argument("app")
@click.option("--lines", "-n", type=click.IntRange(1, 1000), default=200, show_default=True, help="How many.")
@options.as_json
@options.agent
def command(agent: Agent, app: str, lines: int, as_json: bool) -> None:
    """Show the last lines that APP's program wrote."""
    answer = agent.get("/logs", app=app, lines=lines)
    if as_json:
        words.print_json(answer)
        return
    for line in answer.get("lines") or []:
        click.echo(words.clean(line))
