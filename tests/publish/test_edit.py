"""Exactly one scalar changes, and no other byte; or it is said why not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.publish.edit import replaced
from agent.publish.trouble import Trouble
from agent.source.document import read_document
from agent.source.nodes import plain
from agent.source.problems import Problems

PATH = ("apps", "web", "version")
YAML = [
    ("a comment", "apps:\n  web:   # the site\n    version:   1.0   # raise me\n\n", "1.0", "2.0"),
    ("single quotes", "apps: {web: {version: '1.0', x: y}}\n", "'1.0'", "'2.0'"),
    ("double quotes", 'apps:\n  web: {version: "1.0"}', '"1.0"', '"2.0"'),
    ("flow style without a blank at its end", "apps: {web: {version: 1.0}}", "1.0", "2.0"),
    ("carriage returns", "# ü\r\napps:\r\n  web:\r\n    version: 1.0\r\n    x: 'ö'\r\n", "1.0", "2.0"),
    ("a byte order mark", "\ufeffapps: {web: {version: 1.0}}\n", "1.0", "2.0"),
    ("odd line ends", "# a\u2028# b\x85# c\napps: {web: {x: '\u2029', version: 1.0}}\n", "1.0", "2.0"),
    ("an escape in the key", 'apps: {"w\\x65b": {version: 1.0}}\n', "1.0", "2.0"),
    ("the text elsewhere", "apps: {api: {version: 1.0}, web: {v: 1.0, version: 1.0 }}\n", "1.0", "2.0"),
    ("a list", "apps:\n  web:\n    tasks:\n    - version: 1.0\n    version: 1.0\n", "1.0", "2.0"),
    ("a document's marks", "---\napps: {web: {version: 1.0}}\n...\n", "1.0", "2.0"),
    ("a question mark", "? apps\n: ? web\n  : version: 1.0\n", "1.0", "2.0"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "old", "new"), [row[1:] for row in YAML], ids=[row[0] for row in YAML])
def test_yaml_keeps_its_layout(text: str, old: str, new: str) -> None:
    after = replaced(text.encode(), "state.yaml", PATH, "2.0").decode()
    assert text.count(old) >= 1
    assert after == new.join(text.rsplit(old, 1))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("1.10", "1.10"),
        ("https://h/web-{x}.tar?a=b#c", '"https://h/web-{x}.tar?a=b#c"'),
        ("https://h/a:b/%20/web-1.0.tar", "https://h/a:b/%20/web-1.0.tar"),
        ("https://h/a:b/web-1.0.tar", "https://h/a:b/web-1.0.tar"),
        ("sha256:" + "0" * 64, "sha256:" + "0" * 64),
        ("~", '"~"'),
        ("null", '"null"'),
        ("1.0:", '"1.0:"'),
        ("- x", '"- x"'),
        ('"', '"\\""'),
        ("größe", "größe"),
    ],
)
def test_a_plain_value_gets_quotes_where_it_needs_them(value: str, written: str) -> None:
    assert replaced(b"apps: {web: {version: 1.0}}", "s.yml", PATH, value).decode() == (
        f"apps: {{web: {{version: {written}}}}}"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apps: {web: {version: &v 1.0}, api: {version: *v}}", "has an anchor"),
        ("v: &v 1.0\napps: {web: {version: *v}}", "has an anchor"),
        ("apps: {api: &a {version: 1.0}, web: *a}", "cannot be changed alone"),
        ("apps:\n  web:\n    version: |\n      1.0\n", "spans lines"),
        ("apps:\n  web:\n    version: >-\n      1.0\n", "spans lines"),
        ("apps:\n  web:\n    version: 1.0\n      beta\n", "spans lines"),
    ],
)
def test_what_cannot_be_changed_alone_is_refused(text: str, words: str) -> None:
    with pytest.raises(Trouble, match=words):
        replaced(text.encode(), "state.yaml", PATH, "2.0")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('{"apps":{"web":{"version":"1.0","x":[1.0,{"version":"1.0"}]}}}', '"1.0"'),
        ('{\n  "apps" : { "api": {"version": "1.0"}, "web": {"x": "ü\\u00fc", "version" : 1.0 }}}\n', "1.0 "),
        ('{"apps": {"x": [[], {}, "a"], "web": {"l": [{"version": 1}], "version": "1.0"}}}', '"1.0"}}'),
    ],
)
def test_json_keeps_its_layout(text: str, written: str) -> None:
    after = replaced(text.encode(), "state.json", PATH, 'a "2"').decode()
    at = text.rindex(written) if text.count('"1.0"') != 2 else text.index(written)
    end = at + len(written.rstrip("} "))
    assert after == text[:at] + '"a \\"2\\""' + text[end:]


KEYS = st.sampled_from(["a", "b", "ü", "x y", "1.0"])
VALUES = st.recursive(
    st.one_of(st.text(max_size=8).filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t)), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@given(
    around=VALUES,
    before=VALUES,
    value=st.text(max_size=20).filter(str.isprintable),
    file=st.sampled_from(["s.json", "s.yaml"]),
)
def test_whatever_stands_around_it_the_value_is_what_changes(
    around: object, before: object, value: str, file: str
) -> None:
    content = {"z": before, "apps": {"q": around, "web": {"x": [around], "version": "1.0", "y": before}}}
    data = json.dumps(content, ensure_ascii=False, indent=1).encode()
    problems = Problems()
    first = read_document(data, file, problems)
    if first is None or problems:
        return  # text that YAML does not know
    after = read_document(replaced(data, file, PATH, value), file, problems)
    assert after is not None
    assert not problems
    wanted = plain(first)
    wanted["apps"]["web"]["version"] = value
    assert plain(after) == wanted
