"""Whatever a state file holds, reading it gives a state or StateInvalid, and ends."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from agent.source.desired import StateInvalid, load, validate_all
from agent.source.schema.state import Flat, State
from tests.source.state_files import HERE, SHA

SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state")
    (path / "t.j2").write_text("{{ version }}")
    (path / "other.yaml").write_text("vars: {a: b}")
    return path


def _read(tree: Path, data: bytes, name: str) -> None:
    """Read `data` as a state; anything but a state or StateInvalid fails the test."""
    (tree / name).write_bytes(data)
    with suppress(StateInvalid):
        load(tree, name, HERE)
    for problem in validate_all(tree, name, HERE):
        assert str(problem).isprintable()
        assert len(str(problem)) < 2000


_words = st.sampled_from(
    " x 0 1 -1 8080 70000 1.10 true no 10s 500ms 0640 512M fd adopt restart overlap reload exec udp "
    "../x /etc/x a/b t.j2 other.yaml TERM web {{version}} {{vars.a}} {{'a'*10**9}} https://h/{{os}}.tar.gz "
    f"{{{{ file:///x {SHA} sha256:https://h/S prod linux-amd64 switch start \x00 \x1b[1m ü a\nb".split(" ")
)
_anything = st.recursive(
    _words | st.none() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=6,
)


def _like(wanted: inspect.Type, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that have the shape of a type more often than not."""
    if isinstance(wanted, inspect.Metadata):
        wanted = wanted.type
    shaped: st.SearchStrategy[Any] = _words
    if isinstance(wanted, inspect.UnionType):
        members = [m for m in wanted.types if not isinstance(m, inspect.NoneType)]
        shaped = st.one_of([_like(member, depth) for member in members])
    elif isinstance(wanted, inspect.StructType):
        fields = {field.encode_name: _like(field.type, depth + 1) for field in wanted.fields}
        shaped = st.fixed_dictionaries({}, optional=fields)
    elif isinstance(wanted, inspect.DictType):
        shaped = st.dictionaries(_words, _like(wanted.value_type, depth + 1), max_size=3)
    elif isinstance(wanted, inspect.ListType):
        shaped = st.lists(_like(wanted.item_type, depth + 1), max_size=3)
    return st.one_of(shaped, shaped, shaped, shaped, _anything) if depth else shaped


_states = st.one_of(_like(inspect.type_info(State)), _like(inspect.type_info(Flat)))


@given(state=_states)
@SETTINGS
def test_states_of_almost_the_right_shape(tree: Path, state: Any) -> None:
    _read(tree, json.dumps(state).encode(), "fuzz.json")


@given(state=_states)
@SETTINGS
def test_the_same_in_yaml(tree: Path, state: Any) -> None:
    _read(tree, yaml.safe_dump(state, allow_unicode=True).encode("utf-8", "replace"), "fuzz.yaml")


@given(data=st.binary(max_size=400), name=st.sampled_from(["raw.yaml", "raw.json"]))
@SETTINGS
def test_any_bytes(tree: Path, data: bytes, name: str) -> None:
    _read(tree, data, name)


PIECES = "apps: web: run: version: extends: vars: *a &a - { } [ ] , : x \" ' << !!str ? --- # {{vars.a}}"
_pieces = st.sampled_from([*PIECES.split(), "pieces.yaml", " ", "  ", "    ", "\n", "\n", "\n", ">\n"])


@given(text=st.lists(_pieces, max_size=60).map("".join))
@SETTINGS
def test_any_pieces_of_yaml(tree: Path, text: str) -> None:
    _read(tree, text.encode(), "pieces.yaml")
