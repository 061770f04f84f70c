"""The agent as the keeper sees it: a process and a socket pair."""

from __future__ import annotations

import os
import signal
import socket
import time

from agent.keeper.spawn import spawn
from agent.keeper.wire import KEEPER_FD_VARIABLE, MAKES_WAY, Decoder, Outbox, ProtocolError, receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

UNREAD_MAX = 8 << 20  # bytes an agent may leave unread before it counts as hung


class Deaths:
    """How agents ended that were not meant to end: told to the one that comes after them."""

    def __init__(self) -> None:
        self._count = 0
        self._how, self._at = "", 0.0
        self.unborn = 0  # how many in a row never said a word

    def add(self, link: Link, code: int) -> str:
        """One has ended with this code, negative for a signal; returns how, for people."""
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        self.unborn = 0 if link.greeted else self.unborn + 1
        if code != MAKES_WAY:
            self._count, self._at = self._count + 1, time.time()
            self._how = "silence" if link.hung else how
        return how

    def record(self) -> dict[str, Any]:
        """How many there were, and of the last one how it ended and when, in seconds since the epoch."""
        return {"count": self._count, "how": self._how, "at": self._at}


class Link:
    """One life of the agent: from its start to its end, both ends of the socket pair included."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start an agent. Raises OSError when there is no process or descriptor to be had."""
        self.sock, theirs = socket.socketpair()
        with theirs:
            try:
                # TERM, not KILL, on the keeper's death: the agent may still have files to leave whole.
                order = {"argv": command, "environment": {**os.environ, KEEPER_FD_VARIABLE: "3"}}
                self.pid, self.report = spawn(order, [theirs.fileno()], death_signal=signal.SIGTERM)
            except BaseException:
                self.sock.close()
                raise
        self.sock.setblocking(False)
        self.fd = self.sock.fileno()
        self.since = time.monotonic()
        self._decoder = Decoder()
        self._outbox = Outbox(self.sock)
        self.open = True
        self.hung = False  # whether it is ended because it does not answer
        self.reaped = False  # whether its end was taken from the kernel
        self.greeted = False  # whether it has ever said anything
        self.unanswered = 0  # questions since it last did
        self.silent_since = self.since  # when the first of them was asked; its start before its first word

    @property
    def waiting(self) -> bool:
        """Whether answers wait for the agent to read."""
        return self.open and self._outbox.size > 0

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send as much as fits now, the rest later. Raises ProtocolError when it is no frame."""
        if not self.open:
            return
        if descriptors:
            message["descriptors"] = len(descriptors)
        self._outbox.put(message, descriptors)
        self.flush()

    def flush(self) -> None:
        """Send what fits. An agent that does not read is killed, not waited for."""
        try:
            self._outbox.flush()
        except OSError:
            self.open = False
        if self._outbox.size > UNREAD_MAX:
            self.kill(signal.SIGKILL)

    def receive(self, handle: Callable[[dict[str, Any], list[int]], None]) -> bool:
        """Handle the requests in the next bytes; False when there are none now, or ever again.

        `handle` gets the descriptors beside a request, too; they are closed after it.
        """
        try:
            data, descriptors = receive(self.sock)
            self.greeted, self.unanswered = True, 0
            for message in self._decoder.feed(data, descriptors):
                given = self._decoder.take(message.get("descriptors") or 0)
                try:
                    handle(message, given)
                finally:
                    for fd in given:
                        os.close(fd)
        except BlockingIOError:
            return False
        except (OSError, ProtocolError, TypeError):
            data = b""
            self.kill(signal.SIGKILL)
        self.open = self.open and bool(data)
        return self.open

    def kill(self, number: int) -> None:
        """Signal the agent, until it is reaped: then somebody else may have its pid."""
        if not self.reaped:
            os.kill(self.pid, number)

    def close(self) -> None:
        """The agent has ended: close what belonged to it."""
        self.open = False
        self._outbox.clear()
        for fd in self._decoder.descriptors:
            os.close(fd)
        self._decoder.descriptors.clear()
        self.sock.close()
        self.close_report()

    def close_report(self) -> None:
        """Close the socket that tells whether its program runs."""
        if self.report >= 0:
            os.close(self.report)
            self.report = -1
