"""`emptybox retry`: try again what was set aside."""

from __future__ import annotations

import click

from agent.cli import options
from agent.cli.client import Agent
from agent.cli.follow import ask


@click.command(epilog=options.example("emptybox retry web"))
@click.argument("app", default="", metavar="[APP]", shell_complete=options.apps)
@options.wait
@options.as_json
@options.agent
def command(agent: Agent, app: str, wait: bool, as_json: bool) -> int:
    """Try again what failed and was set aside, of APP or of every app."""
    return ask(agent, "/retry", {"app": app}, wait=wait, as_json=as_json)
