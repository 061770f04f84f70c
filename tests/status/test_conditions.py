"""The vocabulary covers the code: a word that is raised somewhere stands in the list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.status import conditions
from agent.status.conditions import REASONS, TYPES, is_well, known_reason

ROOT = Path(conditions.__file__).parents[1]
RAISING = {"Transient", "Permanent", "OperatorNeeded"}
TELLING = {"condition", "_condition", "Condition"}
WORD = re.compile(r"(?:[A-Z][a-z0-9]+)+")


def calls() -> Iterator[tuple[str, ast.Call]]:
    for file in sorted(f for f in ROOT.rglob("*.py") if "cli" not in f.parts):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                yield f"{file.relative_to(ROOT.parent)}:{node.lineno} {name}", node


def words(node: ast.expr | None) -> set[str]:
    if node is None:
        return set()
    found = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {word for word in found if WORD.fullmatch(word)}


def argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    if len(call.args) > position:
        return call.args[position]
    return next((k.value for k in call.keywords if k.arg == name), None)


def test_every_reason_that_is_raised_is_in_the_vocabulary() -> None:
    unknown = [
        f"{where}: {word}"
        for where, call in calls()
        for position in [0 if where.split()[-1] in RAISING else 1]
        if where.split()[-1] in RAISING | {"FailureInfo"}
        for word in words(argument(call, position, "reason"))
        if word not in REASONS
    ]
    assert "\n".join(unknown) == "", "add these to agent/status/conditions.py"


def test_every_condition_that_is_told_is_in_the_vocabulary() -> None:
    unknown = [
        f"{where}: {word}"
        for where, call in calls()
        if where.split()[-1] in TELLING
        for position, name, known in ((0, "type", TYPES), (2, "reason", REASONS))
        for word in words(argument(call, position, name))
        if word not in known
    ]
    assert "\n".join(unknown) == "", "add these to agent/status/conditions.py"


@pytest.mark.parametrize("word", sorted(REASONS))
def test_a_reason_is_one_word_and_its_meaning_a_sentence(word: str) -> None:
    assert WORD.fullmatch(word)
    assert REASONS[word].endswith(".")
    assert known_reason(word) == word


def test_every_type_has_a_scope_and_a_sentence() -> None:
    for kind in TYPES.values():
        assert WORD.fullmatch(kind.name)
        assert kind.scope in ("agent", "app")
        assert kind.sentence.endswith(".")


def test_a_word_from_elsewhere_counts_as_other() -> None:
    assert known_reason("SomethingElse") == "Other"


@pytest.mark.parametrize(
    ("condition", "status", "well"),
    [
        ("Available", "True", True),
        ("Available", "False", False),
        ("Available", "Unknown", None),
        ("Quarantined", "True", False),
        ("Quarantined", "False", True),
        ("Progressing", "True", None),
        ("FromElsewhere", "False", None),
    ],
)
def test_polarity_says_what_is_good_news(condition: str, status: str, well: bool | None) -> None:
    assert is_well(condition, status) is well
