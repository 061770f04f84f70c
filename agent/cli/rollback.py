"""`emptybox rollback`: an app back to an earlier release."""

from __future__ import annotations

import click

from agent.cli import options
from agent.cli.client import Agent
from agent.cli.follow import ask


@click.command(epilog=options.example("emptybox rollback web", "emptybox rollback web --to 1.3.0"))
@click.argument("app", shell_complete=options.apps)
@click.option(
    "--to", default="", metavar="VERSION", help="A version or spec digest (default: the last good one)."
)
@options.wait
@options.as_json
@options.agent
def command(agent: Agent, app: str, to: str, wait: bool, as_json: bool) -> int:
    """Take APP back to the last good release: files, configuration and environment together.

    What runs now is set aside and not tried again until the state names something newer.
    """
    return ask(agent, "/rollback", {"app": app, "to": to}, wait=wait, as_json=as_json, to_wanted=False)
