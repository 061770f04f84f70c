"""`emptybox pause`: start no runs until `resume`."""

from __future__ import annotations

import click

from agent.cli import options, words
from agent.cli.client import Agent


@click.command(epilog=options.example('emptybox pause "database maintenance until 18:00"'))
@click.argument("message", default="", metavar="[MESSAGE]")
@options.as_json
@options.agent
def command(agent: Agent, message: str, as_json: bool) -> None:
    """Start no runs until `emptybox resume`; MESSAGE tells others why.

    What runs goes on, a run under way ends, pushes are still heard.
    """
    _, answer = agent.post("/pause", {"message": message})
    if as_json:
        words.print_json(answer)
        return
    told = (answer.get("paused") or {}).get("message") or message
    click.echo(f"paused: {words.clean(told)}" if told else "paused")
