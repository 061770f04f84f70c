"""`emptybox sync`: look at the state repository now."""

from __future__ import annotations

import click

from agent.cli import options
from agent.cli.client import Agent
from agent.cli.follow import ask


@click.command(epilog=options.example("emptybox sync", "emptybox sync --no-wait"))
@click.option(
    "--prune-all", is_flag=True, help="Also if the state names no app any more: remove all of them."
)
@options.wait
@options.as_json
@options.agent
def command(agent: Agent, prune_all: bool, wait: bool, as_json: bool) -> int:
    """Look at the state repository now, and bring this host to it.

    Exits 0 if everything is as wanted in the end, 1 if a run failed or was rolled back, 4 if an operator
    holds it up: paused, or gone back by hand.
    """
    return ask(agent, "/sync", {"prune_all": True} if prune_all else {}, wait=wait, as_json=as_json)
