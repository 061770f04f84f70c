"""Reading one document: texts stay texts, places are right, and hostile input ends early."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.source import document
from agent.source.document import read_document
from agent.source.nodes import Mapping, Scalar, mark_at, plain
from agent.source.problems import Problems


@pytest.fixture(params=["C", "Python"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers: a platform without libyaml has only the slow one."""
    if request.param == "Python":
        monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)


def read(data: str | bytes, file: str = "state.yaml") -> tuple[Any, list[str]]:
    problems = Problems()
    node = read_document(data.encode() if isinstance(data, str) else data, file, problems)
    return (None if node is None else plain(node)), [str(p) for p in problems.sorted()]


def test_scalars_are_texts_as_they_are_written() -> None:
    source = (
        "a: 1.10\nb: [22:30, no, 0x10, 1_000, 2020-01-01, .5]\nc: {d: 'null', e: \"\", f: ~, g: null, h: }\n"
    )
    assert read(source) == (
        {
            "a": "1.10",
            "b": ["22:30", "no", "0x10", "1_000", "2020-01-01", ".5"],
            "c": {"d": "null", "e": "", "f": None, "g": None, "h": None},
        },
        [],
    )


def test_json_keeps_the_spelling_of_numbers() -> None:
    source = '\ufeff{"a": 1.10, "b": [true, null, -0.0e5],\n\t"c": "\\ud83d\\ude00 \\u00e9", "d": {}}\n'
    expected = {"a": "1.10", "b": ["true", None, "-0.0e5"], "c": "😀 é", "d": {}}
    assert read(source, "state.json") == (expected, [])


@pytest.mark.parametrize("file", ["state.yaml", "state.json"])
def test_places_count_from_one_and_name_keys_and_values(file: str) -> None:
    problems = Problems()
    source = '{"a": {"ü": "x", "b": [1,\n   [2, 3]]}}'
    node = read_document(source.encode(), file, problems)
    assert isinstance(node, Mapping)

    def place(*path: str | int, key: bool = False) -> tuple[int, int]:
        mark = mark_at(node, path, key=key)
        return mark.line, mark.column

    assert place("a", key=True) == (1, 2)
    assert place("a", "ü") == (1, 13)
    assert place("a", "b", key=True) == (1, 18)
    assert place("a", "b", 1, 1) == (2, 8)
    assert place("a", "b", 7, key=True) == (1, 18), "what is not there is placed at the nearest above"


def test_duplicate_keys_are_refused_everywhere_and_all_named() -> None:
    assert read("a: 1\nb: {c: 1, c: 2}\na: 3\n")[1] == [
        "state.yaml:2:11 b.c: given twice, first in line 2",
        "state.yaml:3:1 a: given twice, first in line 1",
    ]
    assert read('{"a": 1,\n "a": 2}', "state.json")[1] == ["state.json:2:2 a: given twice, first in line 1"]


def test_an_alias_repeats_a_value() -> None:
    assert read("a: &x [1, {b: 2}]\nc: *x\nd: &y text\ne: *y\n")[0] == {
        "a": ["1", {"b": "2"}],
        "c": ["1", {"b": "2"}],
        "d": "text",
        "e": "text",
    }


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("", "state.yaml is empty"),
        ("# nothing\n", "state.yaml is empty"),
        ("a: 1\n---\nb: 2\n", "state.yaml:2:1 a second document in one file"),
        ("a: !!int 5", "state.yaml:1:4 a: YAML tags (tag:yaml.org,2002:int) are not supported"),
        (
            "a: !!python/object/apply:os.system [x]",
            "state.yaml:1:4 a: YAML tags (tag:yaml.org,2002:python/object/apply:os.system) are …",
        ),
        ("a: &x [*x]", "state.yaml:1:8 a[0]: the alias x refers to a value that holds it"),
        ("a:\n  - *no", "state.yaml:2:5 a[0]: the alias no refers to nothing"),
        ("b: {<<: {a: 1}}", "state.yaml:1:5 b: merge keys (<<) are not supported, use extends"),
        (
            "a: {{ version }}",
            'state.yaml:1:5 a: a key must be a text; a value that begins with {{ needs quotes: "{{ … }}"',
        ),
        ("a: [b", "state.yaml:…"),
        ("a: 'b", "state.yaml:1:6 not YAML: …"),
        ("a:\n\t- b", "state.yaml:2:1 not YAML: …"),
        ("ü: ö\nb: '\u00fc \x07'", "state.yaml:2:7 not YAML: …"),
        (b"a: \xff", "state.yaml:1:4 not UTF-8"),
        (b"a: 1\nb\x80: 2", "state.yaml:2:2 not UTF-8"),
        ("k" * 300 + ": 1", "state.yaml:1:1 a key of more than 256 characters"),
    ],
)
def test_a_document_that_cannot_be_read_says_where(source: str | bytes, line: str) -> None:
    _, found = read(source)
    beginning = line.partition("…")[0] if line.endswith("…") else line
    assert len(found) == 1
    assert found[0].startswith(beginning)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("", "1:1 not JSON: ends too early"),
        ("{", "1:2 not JSON: expected a key in double quotes"),
        ('{"a": 1,}', "1:9 not JSON: expected a key in double quotes"),
        ("[1,]", "1:4 not JSON: expected a value"),
        ("[1 2]", "1:4 not JSON: expected , or ]"),
        ('{"a" 1}', "1:6 not JSON: expected a colon after the key"),
        ("{'a': 1}", "1:2 not JSON: expected a key in double quotes"),
        ("[01]", "1:2 not JSON: expected a value"),
        ("[NaN]", "1:2 not JSON: expected a value"),
        ("{}\n{}", "2:1 not JSON: something follows the end of the document"),
        ('["\\ud800"]', "1:2 not JSON: half of a surrogate pair"),
        ('["a\nb"]', "1:4 not JSON: invalid control character at"),
        ('["abc', "1:2 not JSON: unterminated string starting at"),
    ],
)
def test_json_that_is_none_says_where(source: str, line: str) -> None:
    assert read(source, "state.json")[1] == [f"state.json:{line}"]


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("[" * 100_000, "nested deeper than 32 levels"),
        ("{a: " * 100_000, "nested deeper than 32 levels"),
        ("\n".join(" " * n + "a:" for n in range(200)), "nested deeper than 32 levels"),
        ("- x\n" * 60_000, "more than 50000 values"),
        ("a: &a [1]\nb: [" + "*a, " * 1100 + "]", "more than 1000 aliases"),
        (
            "a: &a [1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{c}: &{c} [{','.join([f'*{b}'] * 8)}]\n"
                for b, c in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "more than 50000 values",
        ),
        ("x" * ((1 << 20) + 1), "larger than 1 MiB"),
    ],
)
def test_bounds_end_the_reading(source: str, part: str) -> None:
    _, found = read(source)
    assert part in found[0]


def test_deep_json_is_refused_early() -> None:
    assert "nested deeper" in read('[{"a":' * 100_000, "state.json")[1][0]


_json = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value if value is None or isinstance(value, str) else json.dumps(value)


@given(_json, st.sampled_from([None, 2]), st.booleans())
@settings(deadline=None)
def test_all_json_is_read_as_it_was_written(value: Any, indent: int | None, ascii_only: bool) -> None:
    source = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    if any("\ud800" <= c <= "\udfff" for c in str(value)) or "\\ud" in source:
        return  # halves of surrogate pairs are no text
    assert read(source, "state.json") == (_texts(value), [])


@given(_json.filter(lambda value: not _strange(value)))
@settings(deadline=None)
def test_yaml_means_what_pyyaml_means_by_it(value: Any) -> None:
    source = yaml.safe_dump(value, default_style='"')
    expected = yaml.load(source, Loader=yaml.BaseLoader)
    if "!!" in source:
        return  # numbers and nothing in quotes get tags, which are refused
    assert read(source)[0] == expected


def _strange(value: Any) -> bool:
    """Keys the reader refuses: too long, or the merge key."""
    if isinstance(value, dict):
        return any(len(k) > 200 or k == "<<" or _strange(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_strange, value))


@given(st.binary(max_size=300), st.sampled_from(["a.yaml", "a.json"]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused_with_a_reason(data: bytes, file: str) -> None:
    problems = Problems()
    assert read_document(data, file, problems) is not None or problems


_marks = st.text(alphabet="abc:-,[]{}&*!|>'\"%@`#?\n \t~<\\u0", max_size=60)


@given(_marks, st.sampled_from(["a.yaml", "a.json"]))
@settings(max_examples=500, deadline=None)
def test_any_signs_are_read_or_refused_with_a_reason(text: str, file: str) -> None:
    problems = Problems()
    assert read_document(text.encode(), file, problems) is not None or problems


def test_a_scalar_alone_is_a_document() -> None:
    problems = Problems()
    assert isinstance(read_document(b"text", "a.yaml", problems), Scalar)
