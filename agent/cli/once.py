"""`emptybox once`: only its help lives here; see `agent.cli.run`."""

from __future__ import annotations

import click

from agent.cli import options
from agent.cli.settings import SettingsCommand


@click.command(
    cls=SettingsCommand,
    epilog=options.example("emptybox once --repo file:///srv/state.git --data /var/lib/emptybox"),
)
def command(**_: object) -> None:
    """Look at the state repository once, do what it wants, watch it for its probation, stop it, and exit.

    Exits 0 if everything came up as wanted and proved itself, 1 if not. Takes the options of `emptybox run`.
    """
    raise click.UsageError("start it as: emptybox once")
