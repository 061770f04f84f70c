"""One scalar of a YAML or JSON file replaced where it stands, every other byte kept.

The place comes from the parser; that the edit did what was meant, and nothing else, is proved by reading the
old and the new text with the agent's own reader and comparing all of both. So an alias that would carry the
change elsewhere, or quotes that read differently, are found whatever the syntax.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # not in typeshed
from typing import Any

import yaml

from agent.publish.trouble import Trouble
from agent.source.document import read_document
from agent.source.jsontext import tokens
from agent.source.nodes import plain
from agent.source.problems import Path, Problems, dotted

_BOM = "\ufeff"
_PLAIN = re.compile(r"[A-Za-z0-9_./][^\s#'\"\[\]{},]*")


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a scalar stands in a text; `style` is its quote, "" when it has none."""

    start: int
    end: int
    style: str


def replaced(data: bytes, file: str, path: Path, value: str) -> bytes:
    """The file's bytes with `value` as the scalar at `path`. Raises Trouble where that cannot be done.

    Args:
        data: what is in the file now; read_document accepts it.
        file: its name, whose ending says JSON or YAML.
        path: keys and indices from the document's root.
        value: one line of text.
    """
    before = _content(data, file)
    wanted = json.loads(json.dumps(before))
    _set(wanted, path, value)
    text = data.decode()
    bom, text = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    span = _json_span(text, path) if file.endswith(".json") else _yaml_span(text, file, path)
    for written in _spellings(value, span.style, json_only=file.endswith(".json")):
        after = (bom + text[: span.start] + written + text[span.end :]).encode()
        if _content(after, file) == wanted:
            return after
    raise Trouble(
        f"{file}: {dotted(path)} cannot be changed alone: an alias or an anchor ties it to other values",
        "write the value out",
    )


def _content(data: bytes, file: str) -> Any:
    """What the agent reads in it; None when it reads nothing or finds a mistake."""
    problems = Problems()
    root = read_document(data, file, problems)
    return None if root is None or problems else json.loads(json.dumps(plain(root)))


def _set(content: Any, path: Path, value: str) -> None:
    for part in path[:-1]:
        content = content[part]
    content[path[-1]] = value


def _spellings(value: str, style: str, *, json_only: bool) -> Iterator[str]:
    """Ways to write the value, the present style first."""
    double = json.dumps(value, ensure_ascii=False)
    if json_only:
        yield double
        return
    if style == "" and _PLAIN.fullmatch(value):
        yield value
    if style == "'":
        yield "'" + value.replace("'", "''") + "'"
    yield double


def _yaml_span(text: str, file: str, path: Path) -> _Span:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:  # libyaml, which the agent reads with, is a little more lenient
        raise Trouble(f"{file} cannot be edited: {str(error)[:200]}") from None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == part), None)
        else:
            assert isinstance(node, yaml.SequenceNode)
            assert isinstance(part, int)
            node = node.value[part]
    assert isinstance(node, yaml.ScalarNode), "read_document found a scalar there"
    start, end = node.start_mark, node.end_mark
    what = f"{file}:{start.line + 1}: {dotted(path)}"
    if node.style in ("|", ">") or start.line != end.line:
        raise Trouble(f"{what} spans lines, and is not edited", "write it on one line")
    if text[start.index : start.index + 1] in ("&", "!"):
        raise Trouble(f"{what} has an anchor, and may stand elsewhere as well", "write the value out")
    return _Span(start.index, end.index, node.style or "")


def _json_span(text: str, path: Path) -> _Span:
    """Follow the tokens to the value at `path`."""
    lines = [0, *(found.end() for found in re.finditer("\n", text))]
    here: list[str | int] = []  # the path of the value that comes next
    for token in tokens(text):
        at = lines[token.line - 1] + token.column - 1
        if token.kind == "key":
            here[-1] = token.text
        elif token.kind in "{[":
            here.append("" if token.kind == "{" else 0)
        else:
            if token.kind in "}]":
                here.pop()
            elif tuple(here) == path:
                end = scanstring(text, at + 1, True)[1] if text[at] == '"' else at + len(token.text)
                return _Span(at, end, '"')
            if here and isinstance(here[-1], int):
                here[-1] += 1
    raise AssertionError("read_document found a scalar there")
