"""`secrets`: names in the state, values from the host."""

from __future__ import annotations

from collections.abc import Mapping

from agent.kit.mask import MASK
from agent.source.schema.files import variable_name
from agent.source.schema.place import Place
from agent.source.schema.scalars import Raw
from agent.source.secrets import SIZE_MAX, SecretFault
from agent.source.tree import TreeFault

SECRETS_MAX = 100


class Secret(Raw, frozen=True, kw_only=True):
    """Where a secret comes from: one of the four."""

    file: str | None = None
    env: str | None = None
    age: str | None = None
    exec: str | None = None


def secret_values(raw: Mapping[str, Secret], variables: Mapping[str, str], place: Place) -> dict[str, str]:
    """The values by name. Where a state is only checked, away from its host, they are a mask."""
    if len(raw) > SECRETS_MAX:
        place.problem(f"more than {SECRETS_MAX} secrets")
        return {}
    found = {}
    for name, secret in raw.items():
        at = place / name
        given = [kind for kind in ("file", "env", "age", "exec") if getattr(secret, kind) is not None]
        if not variable_name(name, at) or not at.sound:
            continue
        if name in variables:
            at.problem("is given under env, too", key=True)
        elif len(given) != 1:
            at.problem("say where it comes from: file, env, age or exec, one of them")
        else:
            found[name] = _value(given[0], getattr(secret, given[0]), at / given[0])
    return found


def _value(kind: str, name: str, place: Place) -> str:
    reader = place.view.secrets
    try:
        data = place.work.renderer.raw(name, SIZE_MAX) if kind == "age" else b""
        if reader is None:
            return MASK
        if kind == "age":
            return reader.age(data)
        return {"file": reader.file, "env": reader.env, "exec": reader.exec}[kind](name)
    except SecretFault as fault:
        place.problem(str(fault))
    except TreeFault as fault:
        place.problem(f"{name} {fault}")
    return ""
