"""`emptybox run`: only its help lives here; `agent.__main__` starts it, without click."""

from __future__ import annotations

import click

from agent.cli import options
from agent.cli.settings import SettingsCommand


@click.command(
    cls=SettingsCommand,
    epilog=options.example("emptybox run --repo https://git.example/state.git --label env=prod"),
)
def command(**_: object) -> None:
    """Follow the state repository and keep this host as it wants, until told to stop.

    Each option can also be given as the variable behind it; flags win over variables, variables over
    the file named by --config. TERM ends it in order.
    """
    raise click.UsageError("start it as: emptybox run")
