"""Letters that wait for delivery, in the journal and, all of them, in memory.

put ──► waiting ──sent──► remembered (the last of each subject, so that nothing is told twice)
│ ▲
└─┘ a newer letter about the same subject replaces one that waits; but a failure never gives
way to a success, it goes first
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from agent.kit.database import Statement
from agent.notify.letter import Letter

WAITING_MAX = 1000  # letters; the oldest that are not grave go first
REMEMBERED = 200  # subjects of a channel

TABLE = """
CREATE TABLE letters (
  id INTEGER PRIMARY KEY, channel TEXT NOT NULL, subject TEXT NOT NULL, grave INTEGER NOT NULL,
  mark TEXT NOT NULL, body BLOB NOT NULL, created REAL NOT NULL, sent INTEGER NOT NULL DEFAULT 0
)
"""

Write = Callable[[tuple[Statement, ...], bool], Awaitable[None]]


class Outbox:
    """Keeps letters. Writing never waits: see `Journal`.

    Args:
        letters: what the journal holds, oldest first, each with whether it was sent.
        write: hands statements to the journal.
    """

    def __init__(self, letters: Iterable[tuple[Letter, bool]], write: Write) -> None:
        self._write = write
        self._waiting: list[Letter] = []
        self._last: OrderedDict[tuple[str, str], Letter] = OrderedDict()
        self._changed = asyncio.Event()
        self._next = 1
        for letter, sent in letters:
            self._next = max(self._next, letter.id + 1)
            self._last[letter.channel, letter.subject] = letter
            if not sent:
                self._waiting.append(letter)

    def waiting(self, channel: str = "") -> list[Letter]:
        """What is not delivered, oldest first: of one channel or of all."""
        return [letter for letter in self._waiting if channel in ("", letter.channel)]

    def heads(self, channel: str) -> list[Letter]:
        """The letter of each subject that has to go first."""
        first: dict[str, Letter] = {}
        for letter in self.waiting(channel):
            first.setdefault(letter.subject, letter)
        return list(first.values())

    def last(self, channel: str, subject: str) -> str | None:
        """The mark of the newest letter about a subject, delivered or not."""
        letter = self._last.get((channel, subject))
        return letter.mark if letter is not None else None

    def put(self, channel: str, subject: str, mark: str, body: bytes, *, grave: bool = False) -> bool:
        """Leave a letter, unless the newest about this subject says the same. Returns whether it was left."""
        if self.last(channel, subject) == mark:
            return False
        letter = Letter(self._next, channel, subject, grave, mark, body, time.time())
        self._next += 1
        gone = [
            old
            for old in self._waiting
            if (old.channel, old.subject) == (channel, subject) and (grave or not old.grave)
        ]
        self._waiting = [old for old in self._waiting if old not in gone]
        self._waiting.append(letter)
        gone += self._overflow()
        self._remember(letter, gone)
        self._write((*map(_delete, gone), _stored(letter, sent=False)), False)
        self._changed.set()
        return True

    def sent(self, letter: Letter) -> None:
        """It was delivered. The older ones about the same subject are forgotten."""
        self._waiting = [other for other in self._waiting if other.id != letter.id]
        self._write(
            (
                (
                    "DELETE FROM letters WHERE channel = ? AND subject = ? AND id < ? AND sent = 1",
                    (letter.channel, letter.subject, letter.id),
                ),
                ("UPDATE letters SET sent = 1 WHERE id = ?", (letter.id,)),
            ),
            False,
        )
        self._changed.set()

    def stored(self) -> list[Statement]:
        """What writes all of it into a new journal."""
        waiting = {letter.id: letter for letter in self._waiting}
        known = {letter.id: letter for letter in self._last.values()} | waiting
        return [_stored(known[number], sent=number not in waiting) for number in sorted(known)]

    async def changed(self, deadline: float) -> None:
        """Wait until something was put or sent, at most `deadline` seconds."""
        self._changed.clear()
        try:
            async with asyncio.timeout(deadline):
                await self._changed.wait()
        except TimeoutError:
            return

    def _overflow(self) -> list[Letter]:
        gone: list[Letter] = []
        while len(self._waiting) > WAITING_MAX:
            index = next((i for i, letter in enumerate(self._waiting) if not letter.grave), 0)
            gone.append(self._waiting.pop(index))
        return gone

    def _remember(self, letter: Letter, gone: list[Letter]) -> None:
        self._last[letter.channel, letter.subject] = letter
        self._last.move_to_end((letter.channel, letter.subject))
        waiting = {other.id for other in self._waiting}
        told = [k for k, other in self._last.items() if k[0] == letter.channel and other.id not in waiting]
        for key in told[:-REMEMBERED]:
            gone.append(self._last.pop(key))


def _stored(letter: Letter, *, sent: bool) -> Statement:
    row = (letter.id, letter.channel, letter.subject, int(letter.grave), letter.mark, letter.body)
    return (
        "INSERT OR REPLACE INTO letters (id, channel, subject, grave, mark, body, created, sent)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, letter.created, int(sent)),
    )


def _delete(letter: Letter) -> Statement:
    return "DELETE FROM letters WHERE id = ?", (letter.id,)


def read(connection: sqlite3.Connection) -> list[tuple[Letter, bool]]:
    """Everything in the table, oldest first."""
    rows = connection.execute(
        "SELECT id, channel, subject, grave, mark, body, created, sent FROM letters ORDER BY id"
    )
    return [(Letter(i, c, s, bool(g), m, b, at), bool(sent)) for i, c, s, g, m, b, at, sent in rows]
