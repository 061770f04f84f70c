"""`emptybox resume`: undo `pause`, and look at the truth."""

from __future__ import annotations

import click

from agent.cli import options
from agent.cli.client import Agent
from agent.cli.follow import ask


@click.command(epilog=options.example("emptybox resume --no-wait"))
@options.wait
@options.as_json
@options.agent
def command(agent: Agent, wait: bool, as_json: bool) -> int:
    """Let runs start again, and look at the state repository now."""
    return ask(agent, "/resume", {}, wait=wait, as_json=as_json)
