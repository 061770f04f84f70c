"""The schema for editors: JSON Schema (draft 2020-12), generated from the raw types.

The agent reads every scalar as text, so an editor must take `version: 1.4` for a text and `"8080"` for
a number; what msgspec generates is widened accordingly. Sections that have not landed accept nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent.source.schema.scalars import JSON_SCHEMAS
from agent.source.schema.state import Flat, State

_WIDER: dict[str, dict[str, Any]] = {
    "string": {"type": ["string", "number", "boolean"]},
    "integer": {"type": ["integer", "string"], "pattern": "^-?[0-9]{1,18}$"},
    "number": {"type": ["number", "string"]},
    "boolean": {"enum": [True, False, "true", "false"]},
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a state file: the normal form, or the flat one."""
    forms, parts = msgspec.json.schema_components(
        [State, Flat], schema_hook=JSON_SCHEMAS.__getitem__, ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "emptybox state file",
        "anyOf": [_widened(form) for form in forms],
        "$defs": {name: _widened(part) for name, part in parts.items()},
    }


def _widened(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_widened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("not") == {}:
        return {"description": schema["description"], "not": {}}
    found = {key: _widened(value) for key, value in schema.items() if key != "default"}
    kind = found.get("type")
    if isinstance(kind, str) and kind in _WIDER and "enum" not in found and "pattern" not in found:
        del found["type"]
        found |= _WIDER[kind]
    return found
