"""`emptybox exec`: a command in an app, for people without a shell in its container."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterator, Sequence

import click

from agent.cli import options
from agent.cli.client import Agent, Json, Refused, Unreachable, read_from
from agent.cli.exit_codes import FAILED

TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND = 124, 126, 127  # as timeout(1) and shells have it
_CODES = {
    "CommandNotFound": NOT_FOUND,
    "InterpreterMissing": NOT_FOUND,
    "CommandNotExecutable": NOT_EXECUTABLE,
}


def _seconds(_context: click.Context, _option: click.Parameter, text: str) -> float:
    from agent.settings_values import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog=options.example(
        "emptybox exec web -- bin/console users",
        "emptybox exec -i web -- psql < query.sql",
        "emptybox exec -t web -- sh",
    ),
)
@click.argument("app", shell_complete=options.apps)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARG]...")
@click.option(
    "-i", "--stdin", "given", is_flag=True, help="Let it read standard input (else it reads nothing)."
)
@click.option(
    "-t", "--tty", "terminal", is_flag=True, help="Give it a terminal, and what is typed into this one."
)
@click.option(
    "--timeout",
    default="10m",
    callback=_seconds,
    show_default=True,
    metavar="DURATION",
    help="End it after that.",
)
@options.agent
def command(agent: Agent, app: str, words: Sequence[str], given: bool, terminal: bool, timeout: float) -> int:
    """Run COMMAND in APP as the app's other commands run: its user, isolation, environment and directory.

    The agent's settings have to allow it (--allow-exec). Its output comes as it says it. Ctrl-C ends it, and
    all it started; with a terminal (-t) it is typed into that. Exits as it did: its code, 128 and the number
    of the signal that ended it, 124 when its time was over, 126 or 127 when it could not be started.
    """
    words = words[1:] if words[0] == "--" else words
    if not words:
        raise click.UsageError("the command is missing")
    wish: Json = {"app": app, "command": list(words), "timeout": timeout, "input": given}
    if not terminal:
        return _attached(agent, wish, read_from(sys.stdin.fileno()) if given else None)
    if not os.isatty(0):
        raise click.UsageError("-t: standard input is no terminal; -i passes on what is in it")
    from agent.cli.terminal import Typing

    with Typing(0) as typing:
        return _attached(agent, {**wish, "terminal": typing.terminal}, typing.lines())


def _attached(agent: Agent, wish: Json, given: Iterator[bytes] | None) -> int:
    """Run it; returns the exit code."""
    try:
        for told in agent.attached("/exec", wish, given):
            if told and (end := told.get("end")) is not None:
                return _code(end)
            for kind, to in (("out", 1), ("err", 2)):
                if told and kind in told:
                    _write(to, base64.b64decode(told[kind]))
    except Refused as refused:
        if (code := _CODES.get(str(refused.problem.get("reason")))) is None:
            raise
        refused.show()
        return code
    raise Unreachable("the agent ended, or is being started again; the command ended with it")


def _write(to: int, data: bytes) -> None:
    while data:
        data = data[os.write(to, data) :]


def _code(end: Json) -> int:
    if end.get("timeout") is not None:
        click.echo(f"it did not end within {end['timeout']:g} s and was stopped", err=True)
        return TIMED_OUT
    if end.get("limit"):
        click.echo(f"it was killed by {end['limit']}", err=True)
    if end.get("signal") is not None:
        return 128 + int(end["signal"])
    return int(end["code"]) if end.get("code") is not None else FAILED
