"""`emptybox abort`: a canary ends badly before its time."""

from __future__ import annotations

import click

from agent.cli import options
from agent.cli.client import Agent
from agent.cli.follow import ask


@click.command(epilog=options.example("emptybox abort web"))
@click.argument("app", shell_complete=options.apps)
@options.wait
@options.as_json
@options.agent
def command(agent: Agent, app: str, wait: bool, as_json: bool) -> int:
    """Take the clients back from the version of APP that is in canary.

    It is set aside and not tried again until the state names something newer, or until it is retried.
    """
    return ask(agent, "/abort", {"app": app}, wait=wait, as_json=as_json, to_wanted=False, done="rolled-back")
