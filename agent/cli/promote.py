"""`emptybox promote`: a canary ends well before its time."""

from __future__ import annotations

import click

from agent.cli import options
from agent.cli.client import Agent
from agent.cli.follow import ask


@click.command(epilog=options.example("emptybox promote web"))
@click.argument("app", shell_complete=options.apps)
@options.wait
@options.as_json
@options.agent
def command(agent: Agent, app: str, wait: bool, as_json: bool) -> int:
    """Let the version of APP that is in canary have every client now."""
    return ask(agent, "/promote", {"app": app}, wait=wait, as_json=as_json)
