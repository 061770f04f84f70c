"""Options that several verbs share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.cli.client import Agent

if TYPE_CHECKING:
    from agent.publish.sidecars import Signing

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

wait = click.option(
    "--wait/--no-wait",
    default=True,
    help="Follow it to its end, probation included (the default), or only hand it over.",
)


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def signs(function: Command) -> Command:
    """Add --sign-key and --sign-password-file, which `signing` takes as `key` and `password`."""
    key = click.option(
        "--sign-key", "key", metavar="FILE", type=_FILE, envvar="EMPTYBOX_SIGN_KEY",
        help="Sign it with this private key of minisign or OpenSSH.",
    )  # fmt: skip
    password = click.option(
        "--sign-password-file", "password", metavar="FILE", type=_FILE,
        envvar="EMPTYBOX_SIGN_PASSWORD_FILE", help="File with the password of that key.",
    )  # fmt: skip
    return key(password(function))


def signing(key: Path | None, password: Path | None) -> Signing | None:
    """Who signs what is packed or published, if anybody."""
    from agent.publish.sidecars import Signing

    return Signing(key, password) if key is not None else None


def apps(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Names of the agent's apps, for a shell that completes one; none when no agent answers at once."""
    path = context.params.get("path")
    try:
        known = Agent(path or socket_path()).get("/status").get("apps") or {}
    except click.ClickException:
        return []
    return [name for name in known if name.startswith(begun)]


def example(*lines: str) -> str:
    """The end of a verb's --help: command lines that work, kept as they are."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def agent(function: Command) -> Command:
    """Add --socket, and hand the verb an `Agent` as `agent`."""

    @click.option(
        "--socket",
        "path",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="The agent's Unix socket (EMPTYBOX_SOCKET; default: agent.sock in its data directory).",
    )
    @functools.wraps(function)
    def with_agent(*args: Any, path: Path | None, **kwargs: Any) -> Any:
        return function(*args, agent=Agent(path or socket_path()), **kwargs)

    return with_agent  # type: ignore[return-value]


def socket_path() -> Path:
    """Where the agent's settings put its socket. Raises click.UsageError."""
    from agent.config import ConfigError, load

    if given := os.environ.get("EMPTYBOX_SOCKET"):
        return Path(given)
    try:
        return load([], os.environ, need_repo=False).socket
    except ConfigError as error:
        raise click.UsageError("\n".join(error.problems)) from None
