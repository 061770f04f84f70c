"""Reading back what the keeper's scribe wrote: the last lines, and lines as they come, over rotations."""

from pathlib import Path

import pytest

from agent.keeper.scribe import write
from agent.process.written import Following, last, parse

HEAD = b"2026-11-21T07:38:18.123Z web[7]: "


def say(path: Path, *texts: str, size: int = 400, count: int = 3) -> None:
    for text in texts:
        write(str(path), size, count, HEAD, [text.encode()], {})


def texts(lines: object) -> list[str]:
    assert isinstance(lines, list)
    return [line.text for line in lines]


def test_a_line_tells_when_who_and_what() -> None:
    line = parse("web", b"2026-11-21T07:38:18.123Z web/hook crashed[12]: a: b[1]: c")
    assert (line.at, line.source, line.pid) == ("2026-11-21T07:38:18.123Z", "web/hook crashed", 12)
    assert line.text == "a: b[1]: c"
    assert parse("web", b"no such line").text == "no such line"
    assert parse("web", b"2026-11-21T07:38:18.123Z keeper: 3 lines lost").source == "keeper"


@pytest.mark.parametrize("count", [1, 5, 12, 13, 30, 1000])
def test_the_last_lines_are_found_over_all_files(tmp_path: Path, count: int) -> None:
    path = tmp_path / "output.log"
    said = [f"line {n}" for n in range(30)]
    say(path, *said)
    kept = sum(len(file.read_bytes().splitlines()) for file in tmp_path.iterdir())
    assert 10 < kept < 30
    assert texts(last("web", path, count)) == said[-min(count, kept) :]


def test_there_is_nothing_of_an_app_that_said_nothing(tmp_path: Path) -> None:
    assert last("web", tmp_path / "output.log", 10) == []


def test_following_misses_nothing_and_repeats_nothing_over_rotations(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    say(path, "one", "two")
    following = Following("web", path)
    try:
        following.begin(1)
        assert texts(following.before) == ["two"]
        assert following.more() == []
        got = []
        for n in range(50):
            say(path, f"line {n}")
            if n % 7 == 0:
                while more := following.more():
                    got += texts(more)
        while more := following.more():
            got += texts(more)
        assert got == [f"line {n}" for n in range(50)]
    finally:
        following.close()


def test_following_begins_before_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    following = Following("web", path)
    try:
        following.begin(10)
        assert following.more() == []
        say(path, "first")
        assert texts(following.more()) == ["first"]
    finally:
        following.close()


def test_a_line_that_is_half_written_is_told_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    path.write_bytes(HEAD + b"one\n" + HEAD + b"tw")
    following = Following("web", path)
    try:
        following.begin(10)
        assert texts(following.before) == ["one"]
        assert following.more() == []
        with path.open("ab") as file:
            file.write(b"o\n")
        assert texts(following.more()) == ["two"]
    finally:
        following.close()


def test_who_reads_too_slowly_goes_on_with_the_oldest_there_is(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    say(path, "start")
    following = Following("web", path)
    try:
        following.begin(1)
        said = [f"line {n}" for n in range(100)]
        say(path, *said)
        got = []
        while more := following.more():
            got += texts(more)
        held = next(n for n, text in enumerate(got) if text != said[n])  # the rest of the file it had open
        assert got[held:] == said[-len(got[held:]) :]
        assert len(got) < 100
    finally:
        following.close()
