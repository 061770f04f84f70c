"""What happened between two commits: whether the old one is still behind the new one, and what came since.

A walk from both commits at once, newest first, each commit painted NEW (reached from the new one) or OLD
(reached from the old one); OLD wins. What stays NEW came since. Clocks that are wrong make the walk take
more than it must for NEW, never less.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from agent.source.git.objects import COMMIT, read_commit
from agent.source.git.pktline import Garbled
from agent.source.git.transport import Objects

COMMITS_MAX = 10_000
BYTES_MAX = 64 << 20  # of the commits' contents together
_NEW, _OLD = 1, 2


class TooLong(Exception):
    """More happened than is looked through."""


@dataclass(frozen=True, slots=True)
class Passage:
    """From an old commit to a new one.

    `contained`: the old one is behind the new one. `since`: id and content of every commit that is behind
    the new one and not behind the old one, the new one first. `whole`: every commit on the way was at hand;
    if not, more history may show the old commit, or more of `since`.
    """

    contained: bool
    since: tuple[tuple[str, bytes], ...]
    whole: bool


def passage(objects: Objects, new: str, old: str) -> Passage:
    """Walk as far as the objects reach. Blocks. Raises Garbled, TooLong."""
    walk = _Walk(objects)
    walk.paint(new, _NEW)
    walk.paint(old, _OLD)
    walk.run()
    since = tuple((oid, content) for oid, content in walk.content.items() if walk.colours[oid] == _NEW)
    return Passage(bool(walk.colours.get(old, 0) & _NEW), since, walk.whole)


class _Walk:
    def __init__(self, objects: Objects) -> None:
        self.colours: dict[str, int] = {}
        self.content: dict[str, bytes] = {}  # of the commits at hand, in the order they were met
        self.whole = True  # every commit reached from the new one was at hand
        self._objects = objects
        self._size = 0
        self._heap: list[tuple[int, str]] = []
        self._pending: set[str] = set()  # in the heap, and not OLD
        self._parents: dict[str, tuple[str, ...]] = {}
        self._times: dict[str, int] = {}

    def paint(self, oid: str, colour: int) -> None:
        """Add a colour to a commit; if that is news, its parents are to be painted, too."""
        before = self.colours.get(oid, 0)
        if before | colour == before:
            return
        self.colours[oid] = before | colour
        if oid not in self._parents and not self._read(oid):
            self.whole = self.whole and not colour & _NEW
            return
        heapq.heappush(self._heap, (-self._times[oid], oid))
        if self.colours[oid] & _OLD:
            self._pending.discard(oid)
        else:
            self._pending.add(oid)

    def run(self) -> None:
        """Walk until all that is left is OLD."""
        while self._pending:
            _, oid = heapq.heappop(self._heap)
            self._pending.discard(oid)
            for parent in self._parents[oid]:
                self.paint(parent, self.colours[oid])

    def _read(self, oid: str) -> bool:
        try:
            kind, content = self._objects.get(oid)
            info = read_commit(self._objects, oid)
        except KeyError:
            return False
        if kind != COMMIT:
            raise Garbled(f"{oid} is not a commit")
        self._size += len(content)
        if len(self._parents) >= COMMITS_MAX or self._size > BYTES_MAX:
            raise TooLong
        self.content[oid] = content
        self._parents[oid], self._times[oid] = info.parents, info.time
        return True
