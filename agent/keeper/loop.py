"""The keeper's one loop: children, agent, signals and time, each looked after when it stirs.

    RUNNING --asked--> LEAVING --alone--> ENDING --empty--> OVER
       |                  |                  |
       |                  +--again, overdue--+--again, overdue--> KILLING --empty, overdue--> OVER
       +--alone--> ENDING

RUNNING: the agent decides; when it dies it is started again, children and slots stay. LEAVING: it was
asked to end (TERM, INT), or said itself that it will, and has a deadline. ENDING: there is no agent any
more; what is left is asked to end. KILLING: what is left is made to end.

How an agent's end is understood while RUNNING: exit code 0 means that all is done, and 2 that the
settings are wrong, which is final only while no child runs; everything else is a crash.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import socket
import time

from agent.keeper.children import Child, SpawnError, adopted
from agent.keeper.link import Link
from agent.keeper.output import Sink
from agent.keeper.slots import Slots
from agent.keeper.spawn import read_failure
from agent.keeper.verbs import answer, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
BACKOFF = (0.05, 5.0)  # seconds before the agent is started again: first, longest
PROVEN = 10.0  # seconds of life after which an agent's next start is a first one again
LEAVE_DEADLINE = 60.0  # seconds for an agent that was asked to end and did not announce its own deadline
MUTE_DEADLINE = 10.0  # seconds for an agent that closed its socket to end
GRACE = 10.0  # seconds between TERM and KILL when the keeper itself ends the children
KILL_DEADLINE = 5.0  # seconds to wait for what was killed: a process in the kernel's hands may not go
FLUSH_DEADLINE = 1.0  # seconds to write the last lines

RUNNING, LEAVING, ENDING, KILLING, OVER = "running", "leaving", "ending", "killing", "over"
MOVES = {
    (RUNNING, "asked"): LEAVING,
    (RUNNING, "alone"): ENDING,
    (LEAVING, "alone"): ENDING,
    (LEAVING, "again"): KILLING,
    (LEAVING, "overdue"): KILLING,
    (ENDING, "empty"): OVER,
    (ENDING, "again"): KILLING,
    (ENDING, "overdue"): KILLING,
    (KILLING, "empty"): OVER,
    (KILLING, "overdue"): OVER,
}


class Keeper:
    """Everything that must outlive the agent."""

    def __init__(self, command: Sequence[str], output: int = 1) -> None:
        """Prepare; `command` starts an agent, `output` is the descriptor children's lines go to."""
        self.command = command
        self.pid = os.getpid()
        self.state = RUNNING
        self.code = 0
        self.children: dict[str, Child] = {}
        self.slots = Slots()
        self.notes: dict[str, str] = {}
        self.sink = Sink(output)
        self.link: Link | None = None
        self._pids: dict[int, Child] = {}
        self._backoff = BACKOFF[0]
        self._asked_before = False
        self._signals: list[int] = []
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wake = socket.socketpair()

    def run(self) -> int:
        """Keep until the end; returns the exit code."""
        self._listen_to_signals()
        self._start_agent()
        while self.state != OVER:
            self._watch_writers()
            due = min((when for when, _ in self._timers.values()), default=None)
            for key, _ in self._selector.select(None if due is None else max(0.0, due - time.monotonic())):
                if self._selector.get_map().get(key.fd) is key:  # not closed by one before it
                    self._survive(key.data)
            while self._signals:
                self._survive(self._heard, self._signals.pop(0))
            for name, timer in list(self._timers.items()):
                if timer[0] <= time.monotonic() and self._timers.get(name) is timer:
                    del self._timers[name]
                    self._survive(timer[1])
        self._flush()
        return self.code

    def _survive(self, call: Callable[..., object], *arguments: object) -> None:
        """A defect here must not end what is kept: say so and go on."""
        try:
            call(*arguments)
        except Exception as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            line = trace.tb_lineno if trace is not None else 0
            self._say(f"defect in the keeper, line {line}: {type(error).__name__}: {error}")

    # -- for the verbs -----------------------------------------------------------------------------

    def started(self, child: Child) -> None:
        """Look after a child that was just forked, and answer who asked for it once its program runs."""
        self.children[child.name] = self._pids[child.pid] = child
        self._watch(child.output.fd, call=lambda: self.hear(child))
        self._watch(child.report, call=lambda: self._settle(child))

    def hear(self, child: Child, *, drain: bool = False) -> None:
        """Take what a child says: one chunk, or all that is there."""
        try:
            if child.output.fd < 0 or (child.output.drain() if drain else child.output.read()):
                return
        except BlockingIOError:
            return
        self._watch(child.output.fd, 0)
        child.output.close()

    def forget(self, child: Child) -> None:
        """Drop a child, and its last lines."""
        del self.children[child.name]
        if child.output.fd >= 0:
            self._watch(child.output.fd, 0)
            child.output.close()

    def leave(self, deadline: float, code: int) -> None:
        """The agent says that it ends within `deadline` seconds, and with which code the keeper shall."""
        self.code = code
        self._move("asked")
        if self.state == LEAVING:
            self._at("overdue", deadline, lambda: self._move("overdue"))

    # -- children ----------------------------------------------------------------------------------

    def _settle(self, child: Child) -> None:
        """A child's program runs, or cannot: answer who asked."""
        try:
            failure = read_failure(child.report)
        except BlockingIOError:
            return
        self._watch(child.report, 0)
        os.close(child.report)
        child.report = -1
        link, request = child.asked
        if link is not self.link:  # another agent already knows it: told by `hello`, and by its exit code 127
            return
        if failure is None:
            link.send({"id": request, "ok": {"child": child.record()}})
            return
        self._pids.pop(child.pid, None)
        self.forget(child)
        refuse(link, request, SpawnError(*failure))

    def _reap(self) -> None:
        """Take every process that has ended: children, the agent, and orphans that came to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._move("empty")
                return
            if pid == 0:
                break
            if self.link is not None and pid == self.link.pid:
                self._agent_ended(self.link, os.waitstatus_to_exitcode(status))
            elif pid in self._pids:
                self._child_ended(self._pids.pop(pid), status)
        if self.state == KILLING:
            self._signal_all(signal.SIGKILL)  # those who were not ours before their parents ended

    def _child_ended(self, child: Child, status: int) -> None:
        if child.report >= 0:
            self._settle(child)
        if self.children.get(child.name) is not child:
            return
        self.hear(child, drain=True)
        child.ended(status)
        if self.link is not None:
            self.link.send({"event": "exited", "child": child.record()})

    def _signal_all(self, number: int) -> None:
        """Signal all groups of children, and whoever else has become a child of ours."""
        for child in self.children.values():
            with contextlib.suppress(OSError):
                child.kill(number)
        others = set(adopted()) - set(self._pids)
        for pid in others | ({self.link.pid} if self.link is not None else set()):
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    # -- the agent ---------------------------------------------------------------------------------

    def _start_agent(self) -> None:
        try:
            self.link = Link(self.command)
        except OSError as error:
            self._say(f"the agent cannot be started: {error}")
            self._start_later()
            return
        self._watch(self.link.report, call=self._agent_runs)

    def _start_later(self) -> None:
        self._at("start", self._backoff, self._start_agent)
        self._backoff = min(2 * self._backoff, BACKOFF[1])

    def _agent_runs(self) -> None:
        """Its program runs, or cannot; then its end is near and needs no other answer than a word."""
        assert self.link is not None
        failure = read_failure(self.link.report)
        self._watch(self.link.report, 0)
        self.link.close_report()
        if failure is not None:
            self._say(f"the agent cannot be started: {failure[2]}")

    def _talk(self) -> None:
        assert self.link is not None
        link = self.link
        link.flush()
        link.receive(lambda message: answer(self, link, message))

    def _agent_ended(self, link: Link, code: int) -> None:
        """Hear its last words, then start it again or end. `code` is negative for a signal."""
        with contextlib.suppress(OSError):
            os.killpg(link.pid, signal.SIGKILL)  # what it started itself must not meet the next one
        while link.receive(lambda message: answer(self, link, message)):
            pass
        self._watch(link.report, 0)
        self._watch(link.fd, 0)
        link.close()
        self.link = None
        self._timers.pop("mute", None)
        final = code == 0 or (code == 2 and not any(child.running for child in self.children.values()))
        if self.state == RUNNING and not final:
            if time.monotonic() - link.since >= PROVEN:
                self._backoff = BACKOFF[0]
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            self._say(f"the agent ended with {how}; again in {self._backoff:.2g} s")
            self._start_later()
            return
        if code == 2 or code > 64:
            self.code = code
        elif code not in (0, -signal.SIGTERM, -signal.SIGINT):
            self.code = 1
        self._move("alone")

    # -- signals, time and the way out -------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup(1) or a shell's & arranged it
                signal.signal(number, self._note_signal)
        signal.signal(signal.SIGCHLD, self._note_signal)
        self._wakeup.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._watch(self._wakeup.fileno(), call=lambda: self._wakeup.recv(4096))

    def _note_signal(self, number: int, _frame: object) -> None:
        self._signals.append(number)

    def _heard(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
            return
        ends = number in (signal.SIGTERM, signal.SIGINT)
        if ends and self._asked_before:
            self._move("again")
            return
        if self.link is not None:
            self.link.kill(number)
        if ends:
            self._asked_before = True
            self._move("asked")

    def _move(self, event: str) -> None:
        """Go to the next state, if there is one from here, and do what is done on entering it."""
        if (self.state, event) not in MOVES:
            return
        self.state = MOVES[self.state, event]
        self._timers.clear()
        if self.state == LEAVING:
            self._at("overdue", LEAVE_DEADLINE, lambda: self._move("overdue"))
            if self.link is None:
                self._move("alone")
        elif self.state == ENDING:
            self._at("overdue", GRACE, lambda: self._move("overdue"))
            self._signal_all(signal.SIGTERM)
            self._reap()
        elif self.state == KILLING:
            self._say("the end is overdue, or was asked for twice: killing what is left")
            self.code = self.code or 1
            self._at("overdue", KILL_DEADLINE, lambda: self._move("overdue"))
            self._signal_all(signal.SIGKILL)

    def _at(self, name: str, delay: float, call: Callable[[], None]) -> None:
        self._timers[name] = (time.monotonic() + delay, call)

    def _watch_writers(self) -> None:
        """Wait for room to write only where something is to be written; leave a closed socket alone."""
        self._watch(self.sink.fd, selectors.EVENT_WRITE if self.sink.waiting else 0, self.sink.flush)
        link = self.link
        if link is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.waiting else 0)
        self._watch(link.fd, events if link.open else 0, self._talk)
        if not link.open and self.state == RUNNING and "mute" not in self._timers:
            self._at("mute", MUTE_DEADLINE, lambda: link.kill(signal.SIGKILL))

    def _watch(
        self, fd: int, events: int = selectors.EVENT_READ, call: Callable[[], object] | None = None
    ) -> None:
        """Call when something happens to a descriptor; with no events: no more. -1 (closed) is no error."""
        key = self._selector.get_map().get(fd) if fd >= 0 else None
        if key is None and events:
            self._selector.register(fd, events, call)
        elif key is not None and not events:
            self._selector.unregister(fd)
        elif key is not None and key.events != events:
            self._selector.modify(fd, events, call)

    def _say(self, text: str) -> None:
        self.sink.put(b"keeper | ", [text.encode(errors="replace")])

    def _flush(self) -> None:
        end = time.monotonic() + FLUSH_DEADLINE
        while self.sink.waiting and (left := end - time.monotonic()) > 0:
            select.select([], [self.sink.fd], [], left)
            self.sink.flush()
