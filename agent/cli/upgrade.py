"""`emptybox upgrade`: let the agent make way for the code that is installed now."""

from __future__ import annotations

import time

import click

from agent.cli import options
from agent.cli.client import Agent, Unreachable
from agent.cli.exit_codes import FAILED, OK

DEADLINE = 60.0  # seconds the next agent has to answer
AGAIN = 0.05  # seconds between two looks


@click.command(epilog=options.example("emptybox upgrade"))
@options.agent
def command(agent: Agent) -> int:
    """Start the agent anew from newly installed code. Apps go on, no request is lost.

    The keeper, the small parent process, stays as it is until the box restarts.
    """
    before = agent.get("/status")["agent"]
    _, answer = agent.post("/upgrade", {})
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            now = agent.get("/status")["agent"]
        except Unreachable:
            now = before
        if now["pid"] != before["pid"]:
            click.echo(
                f"version {before['version']} (pid {before['pid']}) -> {now['version']} (pid {now['pid']})"
            )
            return OK
        time.sleep(AGAIN)
    click.echo(f"version {answer['upgrade']['version']} does not answer; see the agent's log", err=True)
    return FAILED
