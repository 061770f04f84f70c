"""`emptybox completion`: the script that lets a shell complete verbs and options."""

from __future__ import annotations

import click

from agent.cli import options

VARIABLE = "_EMPTYBOX_COMPLETE"


@click.command(
    epilog=options.example(
        "emptybox completion bash > ~/.local/share/bash-completion/completions/emptybox",
        "emptybox completion fish > ~/.config/fish/completions/emptybox.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "emptybox", VARIABLE).source())
