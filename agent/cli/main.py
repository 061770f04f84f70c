"""`emptybox`: a group of verbs, one a file, each imported only when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import click

from agent.cli.completion import VARIABLE
from agent.cli.exit_codes import INTERRUPTED, OK

# Verb -> module with its `command`; in the order of the help.
VERBS = {
    "run": "agent.cli.run",
    "once": "agent.cli.once",
    "status": "agent.cli.status",
    "history": "agent.cli.history",
    "logs": "agent.cli.logs",
    "ps": "agent.cli.ps",
    "doctor": "agent.cli.doctor",
    "job": "agent.cli.job",
    "exec": "agent.cli.exec",
    "plan": "agent.cli.plan",
    "validate": "agent.cli.validate",
    "pack": "agent.cli.pack",
    "publish": "agent.cli.publish",
    "sync": "agent.cli.sync",
    "rollback": "agent.cli.rollback",
    "retry": "agent.cli.retry",
    "promote": "agent.cli.promote",
    "abort": "agent.cli.abort",
    "store": "agent.cli.store",
    "pause": "agent.cli.pause",
    "resume": "agent.cli.resume",
    "upgrade": "agent.cli.upgrade",
    "config": "agent.cli.config",
    "completion": "agent.cli.completion",
    "demo": "agent.cli.demo.command",
}
SUMMARIES = {  # of those whose first sentence does not fit a line of the help
    "run": "Follow the state repository, and keep this host as it wants.",
    "once": "Bring this host to the state once, watch it, and stop again.",
    "status": "What runs, what is wanted, what happens, what went wrong.",
    "logs": "What the programs of apps said, and say.",
    "ps": "The processes of apps and emptybox's own, and what they use.",
    "doctor": "What may be wrong here, and what is being waited for.",
    "job": "Runs of jobs: begin one, stop it, see past ones.",
    "exec": "Run a command in an app, as its own commands run.",
    "plan": "What a commit would do here, each step with its reason.",
    "validate": "Check a state repository, without an agent.",
    "pack": "Make a reproducible archive of a directory, for agents to fetch.",
    "publish": "Bring a release to where agents fetch it, and push it to the state.",
    "rollback": "Take an app back to the last good version.",
    "retry": "Try again what failed and was set aside.",
    "promote": "End a canary well: every client to the new version.",
    "abort": "End a canary badly: every client back to the old version.",
    "store": "The store of releases: what is in it, whether it is right, what may go.",
    "pause": "Start no runs until emptybox resume.",
    "config": "The agent's own settings that would be in force.",
    "demo": "A push becoming a running version, and a bad one taken back.",
}
_MAY_BE_ABSENT = ("demo",)  # an installation may leave it out


class Verbs(click.Group):
    """Imports a verb when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All verbs that are there."""
        return [name for name in VERBS if name not in _MAY_BE_ABSENT or find_spec(VERBS[name])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One verb, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = import_module(VERBS[cmd_name]).command
        assert isinstance(command, click.Command)
        command.name = cmd_name
        command.short_help = SUMMARIES.get(cmd_name)
        return command


def _version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        click.echo(f"emptybox {version('emptybox')}")
        context.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.pass_context
def emptybox(context: click.Context) -> None:
    """Fills empty boxes: pulls the wanted state from Git and runs it, swapped without losing a request.

    Exit codes: 0 done, 1 tried and failed, 2 wrong command line, 3 no agent answers, 4 not possible now.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False


def main(argv: Sequence[str]) -> int:
    """Carry out one command line (without the program's name); returns the exit code."""
    try:
        if VARIABLE in os.environ:  # a shell asks for completions
            emptybox.main(list(argv), "emptybox", VARIABLE)
        with emptybox.make_context("emptybox", list(argv)) as context:
            code = emptybox.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough; what is buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code if isinstance(code, int) else OK
