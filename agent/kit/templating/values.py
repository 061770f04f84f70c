"""The values a template works on: texts, numbers, true and false, lists, mappings, and what is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from agent.kit.templating.meter import Meter, TemplateFault

WHOLE_MAX = 1 << 63
LIST_MAX = 10_000  # items of a range


@dataclass(frozen=True, slots=True)
class Undefined:
    """The value of a name that is not there. Only `is defined` and `default` accept it."""

    name: str
    near: str = ""

    def fault(self) -> TemplateFault:
        """What using it says."""
        hint = f", did you mean {self.near}?" if self.near else ""
        return TemplateFault(f"{self.name} is not defined{hint}")


def undefined(prefix: str, name: object, known: Iterable[object]) -> Undefined:
    """An Undefined called prefix.name that knows the nearest of the `known` names."""
    text = str(name)[:64]
    near = get_close_matches(text, [k for k in known if isinstance(k, str)][:200], n=1)
    dot = f"{prefix}." if prefix else ""
    return Undefined(f"{dot}{text}", f"{dot}{near[0]}" if near else "")


def is_scalar(value: object) -> bool:
    """Whether it is text, a number, true or false."""
    return isinstance(value, str | int | float)


def kind(value: object) -> str:
    """The word for people."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "a mapping"
    return "nothing" if value is None else "a list"


def text(value: object) -> str:
    """How a value is written; true and false as configuration files write them. Raises TemplateFault."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    hint = "" if value is None else "; use a loop, join or tojson"
    raise TemplateFault(f"{kind(value)} cannot be written{hint}")


def number(value: object) -> int | float:
    """The value as a number to reckon with. Raises TemplateFault."""
    if isinstance(value, int | float):
        return value
    hint = ", use the filter int or float" if isinstance(value, str) else ""
    raise TemplateFault(f"{kind(value)} is not a number{hint}")


def whole(value: object) -> int:
    """The value as a whole number. Raises TemplateFault."""
    if isinstance(value, int):
        return value
    raise TemplateFault(f"{kind(value)} is not a whole number")


def bounded(value: int | float) -> int | float:
    """The value, if it is no whole number beyond 64 bits. Raises TemplateFault."""
    if isinstance(value, int) and not -WHOLE_MAX <= value < WHOLE_MAX:
        raise TemplateFault("the number is too large")
    return value


def items(meter: Meter, value: object) -> list[Any]:
    """A list's items or a mapping's keys as a new list. Raises TemplateFault for anything else."""
    if isinstance(value, str) or not isinstance(value, list | tuple | Mapping):
        hint = ", use the filter split" if isinstance(value, str) else ""
        raise TemplateFault(f"{kind(value)} is not a list{hint}")
    meter.make(len(value))
    return list(value)


def scalars(meter: Meter, value: object) -> list[Any]:
    """Like `items`, and every item must be text or a number."""
    found = items(meter, value)
    for item in found:
        if not is_scalar(item):
            raise TemplateFault(f"the list holds {kind(item)}, not only texts and numbers")
    return found


def member(value: object, key: object, name: str) -> Any:
    """value.key or value[key] of a mapping or list, or Undefined. Raises TemplateFault."""
    if isinstance(value, Undefined):
        raise value.fault()
    if isinstance(value, Mapping):
        if is_scalar(key) and key in value:
            return value[key]
        return undefined(name, key, value)
    if isinstance(key, int) and isinstance(value, list | tuple | str):
        try:
            return value[key]
        except IndexError:
            return Undefined(f"{name}[{key}]")
    return Undefined(f"{name}.{str(key)[:64]}")
