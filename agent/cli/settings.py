"""Verbs that take the agent's own settings: their help is made of the one table in `agent.config`.

The words after the verb are read by `agent.config.load`, not by click: one parser for `emptybox run`,
which never imports click, and for everything here.
"""

from __future__ import annotations

from typing import Any

import click

from agent.config import SETTINGS


class SettingsCommand(click.Command):
    """A command whose callback gets the words after the verb as `arguments`, unread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*_options(), *self.params]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Only --help is click's business."""
        if any(word in ctx.help_option_names for word in args):
            return super().parse_args(ctx, ["--help"])
        ctx.params = {"arguments": tuple(args)}
        return []


def _options() -> list[click.Parameter]:
    options: list[click.Parameter] = [
        click.Option(["--config"], metavar="FILE", help="settings as YAML, flags without dashes as keys")
    ]
    for setting in SETTINGS:
        text = setting.help + ("; may be given more than once" if setting.many else "")
        help_text = f"{text}  [{setting.variable}]"
        options.append(
            click.Option([setting.flag], metavar=setting.metavar, multiple=setting.many, help=help_text)
        )
    return options
