"""Requests and answers over the agent's end of the socket pair, on asyncio.

Requests are matched with answers by number, so any number can be under way at once; each has a
deadline. An answer that nobody waits for any more still takes effect here, and can be undone.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.keeper.protocol import Decoder, Outbox, ProtocolError, receive

DEADLINE = 10.0  # seconds for each answer: the keeper does nothing that takes longer than moments


class KeeperLost(ConnectionError):
    """The keeper is gone, and with it every child."""


class Refused(Exception):
    """The keeper answered with an error; each request says what that means."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["text"])
        self.text: str = error["text"]
        self.code: int = error.get("errno") or errno.EINVAL
        self.stage: str = error.get("stage", "")


@dataclass(frozen=True)
class Answer:
    """What the keeper answered; who takes it owns the descriptors."""

    ok: dict[str, Any]
    descriptors: list[int]


@dataclass(frozen=True)
class _Pending:
    """A request under way. `applied` is called with its answer in any case, `unwanted` when nobody waits."""

    future: asyncio.Future[Answer]
    applied: Callable[[dict[str, Any]], object]
    unwanted: Callable[[], object]


def nothing(*_: object) -> None:
    """Do nothing."""


class Connection:
    """One socket pair's end. `event` is called for what the keeper tells unasked, `ended` once at its end."""

    def __init__(
        self,
        sock: socket.socket,
        event: Callable[[dict[str, Any]], None],
        ended: Callable[[], None],
    ) -> None:
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._event = event
        self._ended = ended
        self._decoder = Decoder()
        self._outbox = Outbox(sock)
        self._writing = False
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._read)

    async def ask(
        self,
        verb: str,
        arguments: dict[str, Any] | None = None,
        applied: Callable[[dict[str, Any]], object] = nothing,
        unwanted: Callable[[], object] = nothing,
        descriptors: Sequence[int] = (),
    ) -> Answer:
        """Send a request and wait for its answer. Raises Refused, KeeperLost, TimeoutError.

        Of `descriptors` the keeper gets duplicates.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        number = self.post({"do": verb, **(arguments or {})}, descriptors)
        self._pending[number] = _Pending(future, applied, unwanted)
        try:
            async with asyncio.timeout(DEADLINE):
                try:
                    return await future
                except BaseException:
                    if future.done() and not future.cancelled() and future.exception() is None:
                        _close_descriptors(future.result())  # answered, and cancelled in the same turn
                        unwanted()
                    raise
        except TimeoutError:
            raise TimeoutError(f"the keeper did not answer {verb} within {DEADLINE:.0f} s") from None

    def post(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        """Send a request without waiting; returns its number. Raises KeeperLost."""
        if self.closed:
            raise KeeperLost("the keeper is gone")
        number = next(self._numbers)
        count = {"descriptors": len(descriptors)} if descriptors else {}
        self._outbox.put({**message, **count, "id": number}, descriptors)
        self._write()
        return number

    def _write(self) -> None:
        try:
            done = self._outbox.flush()
        except OSError:  # its end is noticed, and told, where it is read
            self._outbox.clear()
            done = True
        if done and self._writing:
            self._loop.remove_writer(self._sock.fileno())
        elif not done and not self._writing:
            self._loop.add_writer(self._sock.fileno(), self._write)
        self._writing = not done

    def _read(self) -> None:
        try:
            data, descriptors = receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(f"the keeper is gone: {error}")
            return
        try:
            messages = self._decoder.feed(data, descriptors)
            for message in messages:
                self._take(message)
        except (ProtocolError, KeyError, TypeError) as error:
            self._end(f"the keeper is not understood: {error}")
            return
        if not data:
            self._end("the keeper is gone")

    def _take(self, message: dict[str, Any]) -> None:
        """One answer or event."""
        if "event" in message:
            self._event(message)
            return
        pending = self._pending.pop(message["id"], None)
        if "error" in message:
            if pending is not None and not pending.future.done():
                pending.future.set_exception(Refused(message["error"]))
            return
        answer = Answer(message["ok"], self._decoder.take(message.get("descriptors", 0)))
        if pending is None:
            return
        pending.applied(answer.ok)
        if pending.future.done():
            _close_descriptors(answer)
            pending.unwanted()
        else:
            pending.future.set_result(answer)

    def close(self) -> None:
        """Close this end. Whoever waits gets KeeperLost."""
        self._end("the connection to the keeper was closed", told=False)

    def _end(self, why: str, *, told: bool = True) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())
        self._outbox.clear()
        self._sock.close()
        for fd in self._decoder.take(len(self._decoder.descriptors)):
            os.close(fd)
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(KeeperLost(why))
        self._pending.clear()
        if told:
            self._ended()


def _close_descriptors(answer: Answer) -> None:
    for fd in answer.descriptors:
        os.close(fd)
