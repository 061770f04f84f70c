"""Where PostgreSQL's statements end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.migrator.statements import statements


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ; ;-- nothing\n;/* no ; thing */", []),
        ("a; b", ["a", "b"]),
        ("a 'x;''y'; b", ["a 'x;''y'", "b"]),
        (r"a E'\';'; b", [r"a E'\';'", "b"]),
        ('a "x;""y"; b', ['a "x;""y"', "b"]),
        ("a $$ ; $x$ ; $$; b", ["a $$ ; $x$ ; $$", "b"]),
        ("a $f$ ; $$ ; $f$; b", ["a $f$ ; $$ ; $f$", "b"]),
        ("a $1; b", ["a $1", "b"]),
        ("a /* ; /* ; */ ; */ ; b -- ;", ["a /* ; /* ; */ ; */", "b -- ;"]),
        ("f BEGIN ATOMIC x; SELECT CASE WHEN y THEN z END; END; b", None),
        ("BEGIN; x; END", ["BEGIN", "x", "END"]),
        ("a 'open; b", ["a 'open; b"]),
    ],
)
def test_a_statement_ends_at_its_own_semicolon(text: str, expected: list[str] | None) -> None:
    found = list(statements(text))
    if expected is None:
        expected = ["f BEGIN ATOMIC x; SELECT CASE WHEN y THEN z END; END", "b"]
    assert found == expected


PIECES = st.sampled_from(["a", "1", "';'", '";"', "$$;$$", "/*;*/", "-- ;\n", " ", "E'\\';'", "$x$;$$;$x$"])


@given(st.lists(st.lists(PIECES, min_size=1).map(lambda words: "x " + " ".join(words)), max_size=5))
def test_joined_statements_come_apart_as_they_were(parts: list[str]) -> None:
    assert list(statements(";\n".join(part + "\n" for part in parts))) == [part.strip() for part in parts]


@given(st.text(alphabet="ab;'\"$/*-\n\\E", max_size=200))
def test_any_text_is_taken_apart_without_losing_a_word(text: str) -> None:
    found = list(statements(text))
    letters = [c for part in found for c in part if c in "abE"]
    in_comments = [c for c in text if c in "abE"]
    assert len(letters) <= len(in_comments)
    assert all(part for part in found)
