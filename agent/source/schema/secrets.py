"""`secrets`: names in the state, values from the host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from agent.domain.errors import FailureInfo
from agent.kit.mask import MASK
from agent.source.nodes import mark_at
from agent.source.problems import dotted
from agent.source.schema.place import Place
from agent.source.schema.scalars import Raw
from agent.source.secrets import SIZE_MAX, SecretFault
from agent.source.tree import TreeFault

SECRETS_MAX = 100
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_AGENTS_OWN = re.compile(r"LISTEN_(FDS|PID|FDNAMES)|NOTIFY_SOCKET|NOTIFY_FD|WATCHDOG_(USEC|PID)|EMPTYBOX_.*")


class Secret(Raw, frozen=True, kw_only=True):
    """Where a secret comes from: one of the four."""

    file: str | None = None
    env: str | None = None
    age: str | None = None
    exec: str | None = None


class SecretRefused(Exception):
    """A secret is not to be had for now; `info` says why."""

    def __init__(self, info: FailureInfo) -> None:
        super().__init__(info.message)
        self.info = info


class Revealed(Mapping[str, str]):
    """The values by name, as templates see them. `used` tells whether anybody looked."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values_read = values
        self.used = False

    def __getitem__(self, name: str) -> str:
        self.used = True
        return self.values_read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_read)

    def __len__(self) -> int:
        return len(self.values_read)


def secret_values(raw: Mapping[str, Secret], place: Place) -> Revealed:
    """The values by name. Where a state is only checked, away from its host, they are a mask.

    Raises SecretRefused with the first that is not to be had.
    """
    if len(raw) > SECRETS_MAX:
        place.problem(f"more than {SECRETS_MAX} secrets")
        return Revealed({})
    found = {}
    for name, secret in raw.items():
        at = place / name
        given = [kind for kind in ("file", "env", "age", "exec") if getattr(secret, kind) is not None]
        if not variable_name(name, at) or not at.sound:
            continue
        if len(given) != 1:
            at.problem("say where it comes from: file, env, age or exec, one of them")
        else:
            found[name] = _value(given[0], getattr(secret, given[0]), at / given[0])
    return Revealed(found)


def _value(kind: str, name: str, place: Place) -> str:
    reader = place.view.secrets
    try:
        data = place.work.renderer.raw(name, 2 * SIZE_MAX) if kind == "age" else b""  # armor takes a third
        if reader is None:
            return MASK
        if kind == "file" and not (name := place.relative(name)):
            return ""
        return reader.read(kind, name, data)
    except SecretFault as fault:
        mark = mark_at(place.work.root, place.path)
        message = f"secret {place.path[-2]}: {fault}"
        where = f"{mark.file}:{mark.line} {dotted(place.path)}"
        raise SecretRefused(fault.info(message, where)) from None
    except TreeFault as fault:
        place.problem(f"{name} {fault}")
    return ""


def variable_name(name: str, place: Place) -> bool:
    """Whether an app may be given a variable of this name; if not, the mistake was noted."""
    if not _VARIABLE.fullmatch(name):
        place.problem("a variable's name holds letters, digits and _ and begins with no digit", key=True)
    elif _AGENTS_OWN.fullmatch(name):
        place.problem("is set by the agent", key=True)
    else:
        return True
    return False
