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
@click.option(
    "--accept-history",
    is_flag=True,
    help="Also if a push by force left the last deployed commit behind.",
)
@click.option("--override", metavar="WHY", default="", help="Also in a freeze; history keeps why.")
@options.wait
@options.as_json
@options.agent
def command(
    agent: Agent, prune_all: bool, accept_history: bool, override: str, wait: bool, as_json: bool
) -> int:
    """Look at the state repository now, and bring this host to it.

    Exits 0 if everything is as wanted in the end, 1 if a run failed or was rolled back, 4 if an operator
    holds it up: paused, a freeze, or gone back by hand.
    """
    allowed = {"prune_all": prune_all, "accept_history": accept_history, "override": override}
    body = {name: given for name, given in allowed.items() if given}
    return ask(agent, "/sync", body, wait=wait, as_json=as_json)
