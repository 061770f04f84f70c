"""`emptybox once`: only its help lives here; see `agent.cli.run`."""

from __future__ import annotations

import click

from agent.cli import options
from agent.cli.settings import SettingsCommand


@click.command(
    cls=SettingsCommand,
    epilog=options.example(
        "emptybox once --repo file:///srv/state.git --data /var/lib/emptybox",
        "emptybox once --repo https://git.example/state.git --app nightly-report --set DAY=monday",
    ),
)
@click.option("--app", metavar="NAME", help="look after this app alone")
@click.option(
    "--set",
    metavar="NAME=VALUE",
    multiple=True,
    help="a parameter of the job --app; may be given more than once",
)
def command(**_: object) -> None:
    """Look at the state repository once, do what it wants, run its jobs, and exit with their code.

    Servers are watched for their probation, and stopped. What jobs say goes to standard output.

    Exits 0 if everything came up as wanted, proved itself, and every job succeeded; with the exit
    code of the first job that did not; 1 if something else went wrong. Takes the options of `emptybox run`.
    """
    raise click.UsageError("start it as: emptybox once")
