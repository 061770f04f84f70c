"""Where what children say goes: the keeper's standard output, and files."""

from __future__ import annotations

import os
import select
import stat
import time

from agent.keeper.output import Sink
from agent.keeper.reactor import WRITE
from agent.keeper.scribe import Scribe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.keeper.reactor import Reactor

FLUSH_DEADLINE = 1.0  # seconds to write the last lines


class Outlets:
    """Both of them. Nothing here waits, but for `finish`."""

    def __init__(self, output: int) -> None:
        is_file = stat.S_ISREG(os.fstat(output).st_mode)
        self.scribe = Scribe(output if is_file else -1)
        self.sink = Sink(output, self.scribe if is_file else None)

    def watch(self, reactor: Reactor) -> None:
        """Wait for room to write only where something is to be written."""
        reactor.watch(self.sink.fd, WRITE if self.sink.waiting else 0, self.sink.flush)
        reactor.watch(self.scribe.fd, WRITE if self.scribe.waiting else 0, self.scribe.flush)
        if self.scribe.over:
            self.scribe.close()

    def say(self, text: str) -> None:
        """A word of the keeper's own."""
        self.sink.put(b"keeper | ", [text.encode(errors="replace")])

    def defect(self, error: Exception) -> None:
        """A mistake in the keeper must not end what is kept: say so, and go on."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = trace.tb_lineno if trace is not None else 0
        self.say(f"defect in the keeper, line {line}: {type(error).__name__}: {error}")

    def finish(self) -> None:
        """Write the last lines, as far as there is room for them soon."""
        end = time.monotonic() + FLUSH_DEADLINE
        while self.sink.waiting and (left := end - time.monotonic()) > 0:
            select.select([], [self.sink.fd], [], left)
            self.sink.flush()
