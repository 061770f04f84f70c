"""A program's environment, made from nothing: what is not named here does not reach it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.domain.errors import Permanent
from agent.process.users import User

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How the agent itself was started is nobody else's business, and would mislead programs that ask.
_NEVER_PASSED = ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "EMPTYBOX_", "EINHORN_")


def child_environment(
    *,
    app: str,
    version: str,
    box: str,
    user: User,
    home: Path,
    pass_env: Iterable[str],
    base: Mapping[str, str],
    spec_env: Mapping[str, str],
    directories: Mapping[str, Path],
    extra: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment of a program of an app.

    Later wins: defaults (PATH, HOME, USER, LOGNAME), `pass_env` from `base`, `directories`, `extra`,
    `spec_env`, and last what says whose child it is.

    Args:
        app, version: become EMPTYBOX_APP and EMPTYBOX_VERSION.
        box: identity of the data directory; becomes EMPTYBOX_BOX, by which strays are found.
        user: who it runs as; their home is HOME when it exists.
        home: HOME otherwise.
        pass_env: names of variables of `base` (the agent's environment) to pass on.
        base: the agent's own environment.
        spec_env: the app's `env`.
        directories: variable name (STATE_DIRECTORY) to absolute path, see systemd.exec(5).
        extra: what the occasion adds (PORT).

    Raises Permanent("EnvironmentInvalid") for a name or value no program can be given.
    """
    environment = {
        "PATH": PATH,
        "HOME": user.home if user.home and os.path.isdir(user.home) else str(home),
        "USER": user.name,
        "LOGNAME": user.name,
    }
    for name in pass_env:
        if name in base and not name.startswith(_NEVER_PASSED):
            environment[name] = base[name]
    environment.update({name: str(path) for name, path in directories.items()})
    environment.update(extra)
    environment.update(spec_env)
    environment.update({"EMPTYBOX_APP": app, "EMPTYBOX_VERSION": version, "EMPTYBOX_BOX": box})
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise Permanent(
                "EnvironmentInvalid",
                "a variable's name may not be empty nor hold '=', and neither name nor value a NUL",
                where=f"env.{name}".replace("\0", "\\0"),
            )
    return environment
