"""A journal whose disk does not answer."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from agent.deploy import journal_file
from agent.deploy.journal import Journal
from agent.domain.errors import OperatorNeeded


async def test_a_disk_that_does_not_answer_keeps_nobody_who_can_do_without_and_loses_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "PATIENCE", 0.05)
    asked, answers = threading.Event(), threading.Event()

    def hang(_: sqlite3.Connection) -> bool:
        asked.set()
        return answers.wait(30)

    silent = asyncio.ensure_future(journal._read(hang))
    await asyncio.to_thread(asked.wait, 30)
    with pytest.raises(OperatorNeeded) as raised:
        await journal.history()
    assert raised.value.info.reason == "DiskSilent"
    await journal.safely(journal.put_fact, "pause", "by Ada")
    await journal.in_time(journal.put_fact("other", "by Bob", durable=True))
    await journal.in_time(journal.mark("run-1", "start", durable=True))
    answers.set()
    assert await silent
    told = await journal._read(lambda c: c.execute("SELECT key, value FROM facts").fetchall())
    assert sorted(told) == [("other", "by Bob"), ("pause", "by Ada")]
    assert await journal._read(lambda c: c.execute("SELECT name FROM marks").fetchall()) == [("start",)]
