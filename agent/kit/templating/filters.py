"""The filters, tests and methods a template may use, each charged for what it handles and makes.

They behave as Jinja2's of the same name do; `split` and `bool` are ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import markupsafe

from agent.kit.templating.meter import Meter, TemplateFault
from agent.kit.templating.values import Undefined, bounded, items, kind, member, number, scalars, text, whole

Function = Callable[..., Any]  # (meter, value, *arguments)


def _string(meter: Meter, value: object) -> str:
    result = text(value)
    meter.make(len(result))
    return result


def _of_text(function: Callable[[str], str]) -> Function:
    return lambda meter, value: function(_string(meter, value))


def _default(_: Meter, value: object, fallback: object = "", boolean: object = False) -> object:
    missing = isinstance(value, Undefined) or (boolean and not value)
    return fallback if missing else value


def _trim(meter: Meter, value: object, chars: str | None = None) -> str:
    return _string(meter, value).strip(chars)


def _replace(meter: Meter, value: object, old: str, new: str) -> str:
    source = _string(meter, value)
    meter.make(max(0, len(source) + source.count(old) * (len(new) - len(old))))
    return source.replace(old, new)


def _split(meter: Meter, value: object, separator: str | None = None) -> list[str]:
    source = _string(meter, value)
    meter.make(len(source))
    return source.split(separator)


def _join(meter: Meter, value: object, separator: object = "") -> str:
    parts, glue = [text(v) for v in items(meter, value)], text(separator)
    meter.make(sum(map(len, parts)) + len(glue) * len(parts))
    return glue.join(parts)


def _ends(index: int) -> Function:
    def take(meter: Meter, value: object) -> object:
        source = list(value) if isinstance(value, str) else items(meter, value)
        return source[index] if source else Undefined("an item of an empty list")

    return take


def _length(_: Meter, value: object) -> int:
    if isinstance(value, str | list | tuple | Mapping):
        return len(value)
    raise TemplateFault(f"{kind(value)} has no length")


def _int(_: Meter, value: object, default: object = 0, base: int = 10) -> object:
    try:
        if isinstance(value, str):
            return bounded(int(value if len(value) <= 80 else "", base))
        return bounded(int(number(value)))
    except (ValueError, OverflowError):
        return default


def _float(_: Meter, value: object, default: object = 0.0) -> object:
    try:
        return float(value if isinstance(value, str) and len(value) <= 80 else number(value))
    except ValueError:
        return default


def _bool(_: Meter, value: object) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False}
    words |= {"0": False, "": False}
    found = words.get(text(value).lower())
    if found is None:
        raise TemplateFault("not a word for true or false")
    return found


def _round(_: Meter, value: object, precision: int = 0) -> object:
    return round(number(value), max(-20, min(20, whole(precision))))


def _sort(meter: Meter, value: object, reverse: object = False) -> list[Any]:
    found = scalars(meter, value)
    meter.step(len(found) * 16)
    return sorted(found, reverse=bool(reverse))


def _unique(meter: Meter, value: object) -> list[Any]:
    return list(dict.fromkeys(scalars(meter, value)))


def _reverse(meter: Meter, value: object) -> object:
    return _string(meter, value)[::-1] if isinstance(value, str) else items(meter, value)[::-1]


def _extreme(choose: Callable[[list[Any]], Any]) -> Function:
    def take(meter: Meter, value: object) -> object:
        found = scalars(meter, value)
        return choose(found) if found else Undefined("an item of an empty list")

    return take


def _sum(meter: Meter, value: object) -> object:
    return bounded(sum(number(v) for v in items(meter, value)))


def _mapping(value: object) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    raise TemplateFault(f"{kind(value)} is not a mapping")


def _items(meter: Meter, value: object) -> list[tuple[Any, Any]]:
    meter.make(len(_mapping(value)))
    return list(_mapping(value).items())


def _dictsort(meter: Meter, value: object) -> list[tuple[Any, Any]]:
    meter.step(len(_mapping(value)) * 16)
    return sorted(_items(meter, value), key=lambda pair: text(pair[0]))


def _values(meter: Meter, value: object) -> list[Any]:
    meter.make(len(_mapping(value)))
    return list(_mapping(value).values())


def _get(_: Meter, value: object, key: object, default: object = None) -> object:
    found = member(_mapping(value), key, "the mapping")
    return default if isinstance(found, Undefined) else found


def _map(meter: Meter, value: object, *, attribute: str) -> list[Any]:
    found = [member(item, attribute, "an item") for item in items(meter, value)]
    for item in found:
        if isinstance(item, Undefined):
            raise item.fault()
    return found


def _indent(meter: Meter, value: object, width: object = 4, first: object = False) -> str:
    source = _string(meter, value)
    space = width if isinstance(width, str) else " " * min(whole(width), 256)
    lines = source.split("\n")
    meter.make(len(source) + len(lines) * len(space))
    rest = [space + line if line else line for line in lines[1:]]
    return "\n".join([space + lines[0] if first else lines[0], *rest])


def _escape(meter: Meter, value: object) -> str:
    source = _string(meter, value)
    meter.make(len(source) * 5)
    return str(markupsafe.escape(source))


def _urlencode(meter: Meter, value: object) -> str:
    source = _string(meter, value)
    meter.make(len(source) * 12)
    return quote(source, safe="/")


def _tojson(meter: Meter, value: object, indent: int | None = None) -> str:
    _weigh(meter, value, 0)
    result = json.dumps(value, indent=min(indent, 8) if indent else None, sort_keys=True, ensure_ascii=False)
    meter.make(len(result))
    return result


def _weigh(meter: Meter, value: object, depth: int) -> None:
    """Charge a value with all it holds, before it is written: lists may hold one another many times."""
    if depth > 40:
        raise TemplateFault("the value is nested too deeply")
    if isinstance(value, Mapping):
        for key, item in value.items():
            meter.make(len(text(key)) + 16 * (depth + 1))
            _weigh(meter, item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            meter.make(16 * (depth + 1))
            _weigh(meter, item, depth + 1)
    elif isinstance(value, Undefined):
        raise value.fault()
    else:
        meter.make(len(value) if isinstance(value, str) else 24)


FILTERS: Mapping[str, Function] = {
    "abs": lambda _, v: abs(number(v)),
    "bool": _bool,
    "capitalize": _of_text(str.capitalize),
    "count": _length,
    "d": _default,
    "default": _default,
    "dictsort": _dictsort,
    "e": _escape,
    "escape": _escape,
    "first": _ends(0),
    "float": _float,
    "indent": _indent,
    "int": _int,
    "items": _items,
    "join": _join,
    "last": _ends(-1),
    "length": _length,
    "list": items,
    "lower": _of_text(str.lower),
    "map": _map,
    "max": _extreme(max),
    "min": _extreme(min),
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "sort": _sort,
    "split": _split,
    "string": _string,
    "sum": _sum,
    "title": _of_text(str.title),
    "tojson": _tojson,
    "trim": _trim,
    "unique": _unique,
    "upper": _of_text(str.upper),
    "urlencode": _urlencode,
}
TAKES_UNDEFINED = frozenset({"d", "default"})

TESTS: Mapping[str, Callable[..., bool]] = {
    "boolean": lambda v: isinstance(v, bool),
    "defined": lambda v: not isinstance(v, Undefined),
    "even": lambda v: whole(v) % 2 == 0,
    "false": lambda v: v is False,
    "mapping": lambda v: isinstance(v, Mapping),
    "none": lambda v: v is None,
    "number": lambda v: isinstance(v, int | float),
    "odd": lambda v: whole(v) % 2 == 1,
    "sequence": lambda v: isinstance(v, str | list | tuple | Mapping),
    "string": lambda v: isinstance(v, str),
    "true": lambda v: v is True,
    "undefined": lambda v: isinstance(v, Undefined),
}

METHODS: Mapping[str, Function] = {
    "endswith": lambda meter, v, end: _string(meter, v).endswith(text(end)),
    "get": _get,
    "items": _items,
    "keys": items,
    "lower": FILTERS["lower"],
    "replace": _replace,
    "split": _split,
    "startswith": lambda meter, v, start: _string(meter, v).startswith(text(start)),
    "strip": _trim,
    "upper": FILTERS["upper"],
    "values": _values,
}
