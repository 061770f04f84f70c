"""Facts for those who listen over HTTP: numbered, replayable, bounded.

The newest `KEPT` facts stay in a ring. An id is `<epoch>-<number>`: the epoch tells one life of the
agent from the next, so that a listener that comes back after a restart gets all there is instead of
waiting for numbers that were given out before. Progress is told to those who listen now, at most every
`PROGRESS_EVERY` seconds a step, and is not kept. A listener that does not keep up is let go; it comes
back with the id of the last fact it saw.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any, Self

from agent.domain.errors import FailureInfo
from agent.domain.events import ChildExited, Event, RunFinished, StepProgress
from agent.domain.job import JobRun, run_json
from agent.domain.model import Condition, Pair, PlannedStep
from agent.kit.clock import rfc3339
from agent.status.picture import Json, condition_json, failure_json, pair_json

KEPT = 500
LISTENERS_MAX = 32
WAITING_MAX = 1000  # facts a listener may be behind
PROGRESS_EVERY = 0.1


class TooManyListeners(Exception):
    """All places are taken; try again later."""


@dataclass(frozen=True, slots=True)
class Told:
    """One fact for listeners. `id` is "" for what is not kept.

    Its JSON is made for who listens: most facts are told while nobody does, in the middle of a deploy.
    """

    id: str
    event: Event

    @property
    def name(self) -> str:
        """The fact's type."""
        return type(self.event).__name__

    @property
    def data(self) -> Json:
        """Its fields; see `fact_json`."""
        return fact_json(self.event)


class Listening:
    """One listener's queue. A context manager; `get` gives facts in order."""

    def __init__(self, feed: Feed, past: Sequence[Told]) -> None:
        self._feed = feed
        self._past = deque(past)
        self._queue: asyncio.Queue[Told | None] = asyncio.Queue(WAITING_MAX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.leave(self)

    def put(self, told: Told | None) -> bool:
        """Whether there was room."""
        try:
            self._queue.put_nowait(told)
        except asyncio.QueueFull:
            return False
        return True

    def end(self) -> None:
        """Let the listener finish after what it has not read yet; when the queue is full, at once."""
        while not self.put(None):
            self._queue.get_nowait()

    async def get(self) -> Told | None:
        """The next fact; None when the listener is to go."""
        return self._past.popleft() if self._past else await self._queue.get()


class Feed:
    """The ring and its listeners. Belongs to the event loop's thread."""

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._number = 0
        self._ring: deque[Told] = deque(maxlen=KEPT)
        self._listening: set[Listening] = set()
        self._progress: dict[tuple[str, str], float] = {}
        self._closed = False

    def tell(self, event: Event) -> None:
        """Keep a fact and hand it on."""
        if isinstance(event, StepProgress):
            if self._too_soon(event):
                return
            told = Told("", event)
        else:
            self._number += 1
            told = Told(f"{self._epoch}-{self._number}", _without_log(event))
            self._ring.append(told)
        if isinstance(event, RunFinished):
            self._progress = {key: at for key, at in self._progress.items() if key[0] != event.run}
        for listening in list(self._listening):
            if not listening.put(told) and told.id:
                self._listening.discard(listening)
                listening.end()

    def _too_soon(self, event: StepProgress) -> bool:
        key = (event.run, event.step)
        if event.at - self._progress.get(key, 0.0) < PROGRESS_EVERY and event.done != event.total:
            return True
        self._progress[key] = event.at
        return False

    def listen(self, after: str | None = None) -> Listening:
        """Join, with the kept facts after the id `after`; None: with none. Raises TooManyListeners."""
        if self._closed or len(self._listening) >= LISTENERS_MAX:
            raise TooManyListeners
        listening = Listening(self, [] if after is None else self._since(after))
        self._listening.add(listening)
        return listening

    def _since(self, after: str) -> list[Told]:
        epoch, _, number = after.rpartition("-")
        if epoch != self._epoch or not number.isascii() or not number.isdigit() or len(number) > 18:
            return list(self._ring)
        first = self._number - len(self._ring)
        return list(self._ring)[max(0, int(number) - first) :]

    def leave(self, listening: Listening) -> None:
        """The listener is gone."""
        self._listening.discard(listening)

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listening)

    def close(self) -> None:
        """Let every listener finish; nobody joins any more."""
        self._closed = True
        for listening in list(self._listening):
            self._listening.discard(listening)
            listening.end()


def _without_log(event: Event) -> Event:
    """Lines of a log are not told, and 500 facts with theirs would be a lot to keep."""
    return replace(event, log=()) if isinstance(event, ChildExited) and event.log else event


def fact_json(event: Event) -> Json:
    """A fact as JSON: its fields by name, without log lines and without the options of steps."""
    values = {f.name: getattr(event, f.name) for f in fields(event) if f.name != "log"}
    data = {name: _plain(value) for name, value in values.items()}
    for name in ("at", "due", "next", "first", "last"):
        if name in data:
            data[name] = rfc3339(data[name])
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, Pair):
        return pair_json(value)
    if isinstance(value, FailureInfo):
        return failure_json(value)
    if isinstance(value, JobRun):
        return run_json(value)
    if isinstance(value, Condition):
        return condition_json(value)
    if isinstance(value, PlannedStep):
        return {"name": value.name, "kind": value.kind, "reason": value.reason, "needs": list(value.needs)}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value
