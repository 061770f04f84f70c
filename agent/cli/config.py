"""`emptybox config`: the settings that would be in force."""

from __future__ import annotations

import os

import click

from agent.cli import options, words
from agent.cli.settings import SettingsCommand
from agent.config import ConfigError, as_rows, load


@click.command(
    cls=SettingsCommand,
    epilog=options.example("emptybox config", "EMPTYBOX_POLL=10s emptybox config --label env=prod --json"),
    params=[click.Option(["--json"], is_flag=True, help="print JSON, for programs")],
)
def command(arguments: tuple[str, ...]) -> None:
    """Show the agent's own settings as flags, variables and --config file make them.

    Give the words you would give to `emptybox run`. Contents of secret files are never shown.
    """
    try:
        settings = load([word for word in arguments if word != "--json"], os.environ, need_repo=False)
    except ConfigError as error:
        raise click.UsageError("\n".join(error.problems)) from None
    rows = as_rows(settings)
    if "--json" in arguments:
        words.print_json(dict(rows))
        return
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name.ljust(width)}  {value}".rstrip())
