"""Writes of SQLite, taken together: each commit is one change, which is there or is not.

Of a journal that is written ahead (-wal) a commit ends with a frame that tells the size of the database; what
is written into the database itself counts for nothing before it is synced. Where there is a journal to roll
back (-journal), a commit is its end.
"""

from __future__ import annotations

import struct

from tests.crash.disk import Change
from tests.crash.record import Record

FRAME = 24


def grouped(heard: Record) -> list[Change]:
    """The changes of a record, with those of SQLite taken together."""
    return _shifted(heard.changes, _ends(heard))


def _ends(heard: Record) -> list[int]:
    """For each change the one it is a part of: the last of a commit."""
    ends = list(range(len(heard.changes)))
    for suffix, ended in (("-wal", _is_commit), ("journal.db", _is_synced)):
        parts: list[int] = []
        for number, change in enumerate(heard.changes):
            if not change.writes or not change.what.endswith(suffix):
                continue
            parts.append(number)
            if ended(heard.changes, parts):
                for part in parts:
                    ends[part] = number
                parts = []
        for part in parts:
            ends[part] = parts[-1]
    _roll_back(heard, ends)
    return ends


def _is_commit(changes: list[Change], parts: list[int]) -> bool:
    """Whether the last of these writes is the page behind the frame of a commit."""
    if len(parts) < 2:
        return False
    header, page = changes[parts[-2]].writes[0][2], changes[parts[-1]].writes[0][2]
    if header is None or page is None:
        return page is None  # the file is cut
    return len(header) == FRAME and bool(struct.unpack(">II", header[:8])[1])


def _is_synced(changes: list[Change], parts: list[int]) -> bool:
    """Whether what comes next in the file was synced apart from these."""
    last = changes[parts[-1]].synced
    following = next(
        (c for c in changes[parts[-1] + 1 :] if c.writes and c.what == changes[parts[-1]].what), None
    )
    return following is None or following.synced != last


def _roll_back(heard: Record, ends: list[int]) -> None:
    """A transaction with a journal of its own, from the journal's beginning to its end."""
    begun: dict[str, int] = {}
    for number, change in enumerate(heard.changes):
        verb, _, path = change.what.partition(" ")
        name = path.rpartition("/")[2]
        if verb == "create" and name.endswith("-journal"):
            begun[name] = number
        elif verb.startswith("unlink") and name in begun:
            start, database = begun.pop(name), name.removesuffix("-journal")
            for part in range(start, number + 1):
                words = heard.changes[part].what.rpartition("/")[2].rpartition(" ")[2]
                if words in (name, database):
                    ends[part] = number


def _shifted(changes: list[Change], ends: list[int]) -> list[Change]:
    """Changes put together where they end; the places from which they are for sure move along."""
    kept = sorted(set(ends))
    places = {old: new for new, old in enumerate(kept)}
    together = [Change(changes[end].what, line=changes[end].line) for end in kept]
    for number, change in enumerate(changes):
        one = together[places[ends[number]]]
        one.names += change.names
        one.writes += change.writes
    for end, one in zip(kept, together, strict=True):
        last = changes[end].synced
        one.synced = last if last == float("inf") else sum(1 for other in kept if other < last)
    return together
