"""Log lines: one a record, dated, masked, told to whom they belong."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from agent.kit.mask import Masker
from agent.status.log import LINE_MAX, bind, setup

log = logging.getLogger("agent.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def masker() -> Masker:
    masker = Masker()
    masker.add("hunter2")
    return masker


def test_a_text_line_has_time_level_and_message(stream: io.StringIO) -> None:
    setup("text", "info", stream)
    log.info("web: step %s done in %d ms", "switch", 3)
    log.debug("not this")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info    web: step switch done in 3 ms\n", stream.getvalue()
    )


def test_a_json_line_is_one_object(stream: io.StringIO) -> None:
    setup("json", "debug", stream)
    with bind(sync="sync-1", app="web", run=""):
        log.warning("two\nlines \x1b[31m")
    line = stream.getvalue()
    assert line.count("\n") == 1
    record = json.loads(line)
    assert record["at"].endswith("Z")
    del record["at"]
    assert record == {
        "level": "warning",
        "logger": "agent.test",
        "message": "two\nlines \x1b[31m",
        "sync": "sync-1",
        "app": "web",
    }


def test_nobody_writes_lines_or_colours_in_our_name(stream: io.StringIO) -> None:
    setup("text", "info", stream)
    log.info("evil\n2026-01-01T00:00:00.000Z info    all is well \x1b[2J\r\u2028")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "\\x1b[2J\\r\\u2028" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("style", ["text", "json"])
def test_secrets_are_masked_in_messages_and_tracebacks(
    style: str, stream: io.StringIO, masker: Masker
) -> None:
    setup(style, "info", stream, masker)
    try:
        raise ValueError("cannot log in with hunter2 at https://bob:pw@host/x")
    except ValueError:
        log.exception("login with %s failed", "hunter2")
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "bob:pw" not in text
    assert "ValueError: cannot log in with *** at https://***@host/x" in text


async def test_ids_travel_with_the_task_that_bound_them(stream: io.StringIO) -> None:
    setup("text", "info", stream)
    told = asyncio.Event()

    async def one(name: str) -> None:
        with bind(run=name):
            await told.wait()
            log.info("from %s", name)

    async with asyncio.TaskGroup() as group:
        group.create_task(one("a"))
        group.create_task(one("b"))
        told.set()
    log.info("from nobody")
    lines = [line.partition("from ")[2] for line in stream.getvalue().splitlines()]
    assert sorted(lines) == ["a  [run=a]", "b  [run=b]", "nobody"]


def test_inner_ids_join_the_outer_ones_and_leave_with_their_block(stream: io.StringIO) -> None:
    setup("text", "info", stream)
    with bind(sync="s"):
        with bind(run="r"):
            log.info("inner")
        log.info("outer")
    inner, outer = stream.getvalue().splitlines()
    assert inner.endswith("[sync=s run=r]")
    assert outer.endswith("[sync=s]")


def test_a_line_without_end_is_cut(stream: io.StringIO) -> None:
    setup("text", "info", stream)
    log.info("x" * (LINE_MAX * 3))
    assert len(stream.getvalue()) < LINE_MAX + 100


def test_setting_up_again_replaces_what_was(stream: io.StringIO) -> None:
    first = io.StringIO()
    setup("text", "info", first)
    setup("json", "error", stream)
    log.error("once")
    log.info("never")
    assert first.getvalue() == ""
    assert json.loads(stream.getvalue())["message"] == "once"
