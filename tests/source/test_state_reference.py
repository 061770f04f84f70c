"""docs/state.md and the JSON Schema tell the truth about the schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import inspect

from agent.domain.spec import AppSpec, HealthSpec, MaintenanceSpec, RestartSpec, StopSpec
from agent.kit.templating.filters import FILTERS, METHODS, TESTS
from agent.source.schema.app import App
from agent.source.schema.jsonschema import json_schema
from agent.source.schema.state import Flat, State
from agent.source.templates import PAGE_NAMES, render_page
from tests.source.state_files import APP, HERE, read, with_lines

PAGE = (Path(__file__).parents[2] / "docs" / "state.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def _files() -> dict[str, str]:
    templates = {name: body for block in _blocks("jinja") for name, body in [_named(block)]}
    return {"state.yaml": _blocks("yaml")[0], **templates}


def _named(block: str) -> tuple[str, str]:
    name, _, body = block.removeprefix("{# ").partition(" #}\n")
    return name, body


def test_the_example_is_a_valid_state(tmp_path: Path) -> None:
    loaded = read(tmp_path, _files())
    assert list(loaded.apps) == ["web", "worker"]
    assert loaded.warnings == ()
    expected = b"greeting = hello from box-1\nupstream = 10.0.0.5:9000\nupstream = 10.0.0.6:9000\n\n"
    assert loaded.apps["web"].files[0].content == expected
    assert loaded.apps["web"].env["REGION"] == "none"


def test_the_flat_example_is_a_valid_state(tmp_path: Path) -> None:
    loaded = read(tmp_path, {"state.json": _blocks("json")[0]})
    assert list(loaded.apps) == ["app"]
    assert loaded.warnings == ()


def _structs(wanted: inspect.Type, found: dict[type, inspect.StructType]) -> dict[type, inspect.StructType]:
    """Every struct that a type holds."""
    if isinstance(wanted, inspect.StructType) and wanted.cls not in found:
        found[wanted.cls] = wanted
        for field in wanted.fields:
            _structs(field.type, found)
    for part in ("type", "value_type", "item_type"):
        inner = getattr(wanted, part, None)
        if isinstance(inner, inspect.Type):
            _structs(inner, found)
    for member in getattr(wanted, "types", ()):
        _structs(member, found)
    return found


def _not_yet(field: inspect.Field) -> bool:
    return isinstance(field.type, inspect.Metadata) and bool((field.type.extra or {}).get("not_yet"))


LATER_ONLY = {"Freeze", "Secret", "Job", "Signature", "Limits"}
STRUCTS = [s for s in _structs(inspect.type_info(State), {}).values() if s.cls.__name__ not in LATER_ONLY]


@pytest.mark.parametrize("struct", [*STRUCTS, inspect.type_info(Flat)], ids=lambda s: s.cls.__name__)
def test_the_page_names_every_key(struct: inspect.StructType) -> None:
    reference, later = PAGE.split("## Not yet supported")
    for field in struct.fields:
        place = later if _not_yet(field) else reference
        assert re.search(rf"`(\w+\.)*{re.escape(field.encode_name)}[`:.]", place), field.encode_name


def test_the_page_lists_what_templates_may_use() -> None:
    text = PAGE.replace("\n", " ")
    for word, table in (("filters", FILTERS), ("tests", TESTS), ("methods", METHODS)):
        listed = re.search(rf"the {word} (.*?)[;.]", text)
        assert listed is not None
        names = re.sub(r"\(.*?\)", "", listed[1]).replace(",", "").split()
        assert sorted(names) == sorted(table)


def test_the_page_tells_the_defaults() -> None:
    expected = {
        "stop.grace": StopSpec().grace,
        "restart.backoff": RestartSpec().backoff,
        "restart.backoff_max": RestartSpec().backoff_max,
        "restart.window": RestartSpec().window,
        "restart.cooldown": RestartSpec().cooldown,
        "interval": HealthSpec().interval,
        "probation": HealthSpec().probation,
        "alive": HealthSpec().alive,
        "hold": MaintenanceSpec().hold,
        "retry_after": MaintenanceSpec().retry_after,
    }
    units = {"ms": 0.001, "s": 1, "m": 60}
    for key, seconds in expected.items():
        told = re.search(rf"^\| `{re.escape(key)}` \| [^|]* \| (\d+)(ms|s|m) \|", PAGE, re.MULTILINE)
        assert told is not None, key
        assert float(told[1]) * units[told[2]] == pytest.approx(seconds), key
    assert f"| `keep` | number, 1 to 100 | {AppSpec(name='', version='').keep} |" in PAGE


def test_a_page_is_rendered_with_what_the_reference_promises(tmp_path: Path) -> None:
    page = read(tmp_path, _files()).apps["web"].maintenance.page
    values: dict[str, Any] = dict.fromkeys(PAGE_NAMES, "")
    assert render_page(page, values | {"phase": "<b>", "percent": 50}) == "<h1>&lt;b&gt;</h1><p>50 %</p>\n"
    assert render_page(page, values | {"phase": "Up", "percent": None}) == "<h1>Up</h1>\n"


SCHEMA = json_schema()
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def _accepts(schema: dict[str, Any], value: Any) -> bool:
    """JSON Schema, as far as ours uses it."""
    if "$ref" in schema:
        return _accepts(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], value)
    if schema.get("not") == {}:
        return False
    if "anyOf" in schema and not any(_accepts(member, value) for member in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = schema.get("type", list(_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, _TYPES[kind]) for kind in kinds):
        return False
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int | float):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, list):
        return all(_accepts(schema.get("items", {}), item) for item in value)
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        return all(
            _accepts(known[k], v) if k in known else other is not False and _accepts(other, v)
            for k, v in value.items()
        )
    return True


def test_the_json_schema_accepts_the_examples() -> None:
    assert _accepts(SCHEMA, yaml.safe_load(_blocks("yaml")[0]))
    assert _accepts(SCHEMA, yaml.safe_load(_blocks("json")[0]))


@pytest.mark.parametrize(
    "lines",
    [
        "keep: 2",
        'keep: "2"',
        "health: {alive: 0}",
        "health: {alive: 1.5s}",
        "env: {A: 1, B: 1.5, C: true, D: x}",
        "listen: {a: {port: 80}}",
        "files: [{content: x, target: y, mode: 640}]",
        "drain: {connections: true}",
    ],
)
def test_the_json_schema_accepts_what_is_valid(tmp_path: Path, lines: str) -> None:
    assert _accepts(SCHEMA, yaml.safe_load(with_lines(lines)))
    read(tmp_path, with_lines(lines))


@pytest.mark.parametrize(
    "lines",
    [
        "kep: 2",
        "keep: 0",
        "keep: many",
        "health: {alive: 5}",
        "health: {alive: soon}",
        "secrets: {A: {vault: b}}",
        "listen: 99999",
        "files: [x]",
        "files: [{content: x, target: y, mode: '9'}]",
        "swap: no",
        "drain: {connections: maybe}",
    ],
)
def test_the_json_schema_refuses_what_is_not(lines: str) -> None:
    assert _accepts(SCHEMA, yaml.safe_load(APP))
    assert not _accepts(SCHEMA, yaml.safe_load(with_lines(lines)))


def test_the_json_schema_describes_every_part() -> None:
    names = {s.cls.__name__ for s in _structs(inspect.type_info(State), {}).values()} | {
        "Flat",
        "Swap",
        "OnChange",
        "MigrationKind",
    }
    assert names == set(SCHEMA["$defs"])
    assert set(SCHEMA["$defs"]["App"]["properties"]) == set(App.__struct_fields__)
    assert HERE.labels
