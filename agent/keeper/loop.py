"""The keeper's one loop: children, agent, signals and time, each looked after when it stirs.

    RUNNING --asked--> LEAVING --alone--> ENDING --empty--> OVER
       |                  |                  |
       |                  +--again, overdue--+--again, overdue--> KILLING --empty, overdue--> OVER
       +--alone--> ENDING

RUNNING: the agent decides; when it dies it is started again, children and slots stay. LEAVING: it was asked
to end (TERM, INT), or said itself that it will, and has a deadline. ENDING: without an agent, what is left is
asked to end. KILLING: what is left is made to end.

The agent's end while RUNNING: 0 means that all is done, 2 that the settings are wrong, final only while no
child runs; everything else is a crash.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from agent.keeper.adopt.adopter import Adopter, TreeGone
from agent.keeper.attendant import attend, dismiss, main_of
from agent.keeper.children import Child, SpawnError, adopted
from agent.keeper.link import Deaths, Link
from agent.keeper.manager import Manager
from agent.keeper.outlets import Outlets
from agent.keeper.reactor import READ, WRITE, Reactor
from agent.keeper.slots import Slots
from agent.keeper.spawn import read_report
from agent.keeper.verbs import answer, refuse
from agent.keeper.vigil import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
BACKOFF = (0.05, 5.0)  # seconds before the agent is started again: first, longest
PROVEN = 10.0  # seconds of life after which an agent's next start is a first one again
LEAVE_DEADLINE = 60.0  # seconds for an agent that was asked to end and did not announce its own deadline
MUTE_DEADLINE = 10.0  # seconds for an agent that closed its socket to end
LOOK = 0.01  # seconds between looks for who goes on in the background
GRACE = 10.0  # seconds between TERM and KILL when the keeper itself ends the children
KILL_DEADLINE = 5.0  # seconds to wait for what was killed: a process in the kernel's hands may not go

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
        self.state, self.code = RUNNING, 0
        self.deaths = Deaths()
        self.children: dict[str, Child] = {}
        self.slots = Slots()
        self.notes: dict[str, str] = {}
        self.outlets = Outlets(output)
        self.link: Link | None = None
        self.manager = Manager(os.environ)
        self._pids: dict[int, Child] = {}
        self._backoff = BACKOFF[0]
        self._asked_before = False
        self.reactor = Reactor(self.outlets.defect)

    def run(self) -> int:
        """Keep until the end; returns the exit code."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whatever it was for whoever started us
        self.reactor.hear((*FORWARDED, signal.SIGCHLD), self._heard)
        self._start_agent()
        watch(self)
        while self.state != OVER:
            self._watch_writers()
            self.reactor.turn()
        self.outlets.finish()
        return self.code

    # -- for the verbs -----------------------------------------------------------------------------

    def started(self, child: Child) -> None:
        """Look after a child that was just forked, and answer who asked for it once its program runs."""
        self.children[child.name] = self._pids[child.pid] = child
        self.reactor.watch(child.output.fd, call=lambda: self.hear(child))
        self.reactor.watch(child.report, call=lambda: self._settle(child))
        attend(self, child)

    def hear(self, child: Child, *, drain: bool = False) -> None:
        """Take what a child says: one chunk, or all that is there."""
        try:
            if child.output.fd < 0 or (child.output.drain() if drain else child.output.read()):
                return
        except BlockingIOError:
            return
        self.reactor.watch(child.output.fd, 0)
        child.output.close()

    def forget(self, child: Child) -> None:
        """Drop a child, its last lines, and its trap."""
        del self.children[child.name]
        self._end_trap(child)
        dismiss(self, child)
        if child.output.fd >= 0:
            self.reactor.watch(child.output.fd, 0)
            child.output.close()

    def leave(self, deadline: float, code: int) -> None:
        """The agent says that it ends within `deadline` seconds, and with which code the keeper shall."""
        self.code = code
        self._move("asked")
        if self.state == LEAVING:
            self.manager.stopping(deadline + GRACE + KILL_DEADLINE)
            self.reactor.at("overdue", deadline, lambda: self._move("overdue"))

    # -- children ----------------------------------------------------------------------------------

    def _settle(self, child: Child) -> None:
        """A child's program runs, or cannot: answer who asked. First may come its trap, and what holds."""
        try:
            failure, descriptors, held = read_report(child.report)
            while descriptors or held:
                if descriptors:
                    child.adopter = Adopter(descriptors[0], child.wanted, self.slots)
                    self.reactor.watch(descriptors[0], call=lambda: self._adopt(child))
                child.held = held or child.held
                failure, descriptors, held = read_report(child.report)
        except BlockingIOError:
            return
        self.reactor.watch(child.report, 0)
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

    def _adopt(self, child: Child) -> None:
        """Answer a call of a child's tree, or see that there is no tree any more."""
        assert child.adopter is not None
        if child.report >= 0:  # its start is told before any event
            self._settle(child)
        try:
            news = child.adopter.serve()
        except TreeGone:
            self._end_trap(child)
            if child.headless is not None:
                self._child_ended(child, child.headless)
            return
        if news:
            self.tell("changed", child)

    def _seek_heir(self, child: Child, since: float) -> None:
        """Look, and look again, for a process that goes on in the place of a leader that has ended."""
        if child.headless is None:  # it has ended meanwhile
            return
        if child.follow(self._orphans()):
            self._pids[child.pid] = child
            self.tell("changed", child)
        elif time.monotonic() >= since + child.patience:
            self._child_ended(child, child.headless)
        else:
            self.reactor.at(f"heir of {child.name}", LOOK, lambda: self._seek_heir(child, since))

    def tell(self, event: str, child: Child) -> None:
        """Tell the agent of a child."""
        if self.link is not None:
            self.link.send({"event": event, "child": child.record()})

    def _end_trap(self, child: Child) -> None:
        if child.adopter is not None:
            self.reactor.watch(child.adopter.listener, 0)
            child.adopter.close()

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
        if self.state in (ENDING, KILLING) and not any(child.running for child in self.children.values()):
            self.outlets.scribe.end()  # it is the last process to end
        if self.state == KILLING:
            self._signal_all(signal.SIGKILL)  # those who were not ours before their parents ended

    def _child_ended(self, child: Child, status: int) -> None:
        if child.report >= 0:
            self._settle(child)
        if self.children.get(child.name) is not child:
            return
        self.hear(child, drain=True)
        if status == 0 and child.headless is None and child.adopter is not None:
            child.headless = status
            self._seek_heir(child, time.monotonic())
            return
        if main := main_of(child, self._orphans()):
            child.go_on(main)
            self._pids[main] = child
            self.tell("changed", child)
            return
        child.ended(status)
        self.tell("exited", child)

    def _signal_all(self, number: int) -> None:
        """Signal all groups of children, and whoever else has become a child of ours."""
        for child in self.children.values():
            with contextlib.suppress(OSError):
                child.kill(number)
        for pid in self._orphans() | ({self.link.pid} if self.link is not None else set()):
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def _orphans(self) -> set[int]:
        """Processes that came to us: not the agent, nor the scribe, both of which may have all slots open."""
        agent = self.link.pid if self.link is not None else 0
        return set(adopted()) - set(self._pids) - {agent, self.outlets.scribe.pid}

    # -- the agent ---------------------------------------------------------------------------------

    def _start_agent(self) -> None:
        try:
            self.link = Link(self.command)
        except OSError as error:
            self.outlets.say(f"the agent cannot be started: {error}")
            self._start_later()
            return
        self.reactor.watch(self.link.report, call=self._agent_runs)

    def _start_later(self) -> None:
        self.reactor.at("start", self._backoff, self._start_agent)
        self._backoff = min(2 * self._backoff, BACKOFF[1])

    def _agent_runs(self) -> None:
        """Its program runs, or cannot; then its end is near and needs no other answer than a word."""
        assert self.link is not None
        self.reactor.watch(self.link.report, 0)
        if (failure := read_report(self.link.report)[0]) is not None:
            self.outlets.say(f"the agent cannot be started: {failure[2]}")
        self.link.close_report()

    def _talk(self) -> None:
        if (link := self.link) is not None:
            link.flush()
            link.receive(lambda *asked: answer(self, link, *asked))

    def _agent_ended(self, link: Link, code: int) -> None:
        """Hear its last words, then start it again or end. `code` is negative for a signal."""
        link.reaped = True
        with contextlib.suppress(OSError):
            os.killpg(link.pid, signal.SIGKILL)  # what it started itself must not meet the next one
        while link.receive(lambda *asked: answer(self, link, *asked)):
            pass
        self.reactor.watch(link.report, 0)
        self.reactor.watch(link.fd, 0)
        link.close()
        self.link = None
        self.reactor.forget("mute")
        final = code == 0 or (code == 2 and not any(child.running for child in self.children.values()))
        if self.state == RUNNING and not final:
            if time.monotonic() - link.since >= PROVEN:
                self._backoff = BACKOFF[0]
            how = self.deaths.add(link, code)
            self.outlets.say(f"the agent ended with {how}; again in {self._backoff:.2g} s")
            self._start_later()
            return
        if code == 2 or code > 64:
            self.code = code
        elif code not in (0, -signal.SIGTERM, -signal.SIGINT):
            self.code = 1
        self._move("alone")

    # -- signals, time and the way out -------------------------------------------------------------

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
        self.reactor.forget()
        self.manager.stopping()
        if self.state == LEAVING:
            self.reactor.at("overdue", LEAVE_DEADLINE, lambda: self._move("overdue"))
            if self.link is None:
                self._move("alone")
        elif self.state == ENDING:
            self.reactor.at("overdue", GRACE, lambda: self._move("overdue"))
            self._signal_all(signal.SIGTERM)
            self._reap()
        elif self.state == KILLING:
            self.outlets.say("the end is overdue, or was asked for twice: killing what is left")
            self.code = self.code or 1
            self.reactor.at("overdue", KILL_DEADLINE, lambda: self._move("overdue"))
            self._signal_all(signal.SIGKILL)

    def _watch_writers(self) -> None:
        """Wait for room to write only where something is to be written; leave a closed socket alone."""
        self.outlets.watch(self.reactor)
        link = self.link
        if link is None:
            return
        events = READ | (WRITE if link.waiting else 0)
        self.reactor.watch(link.fd, events if link.open else 0, self._talk)
        if not link.open and self.state == RUNNING and not self.reactor.waits("mute"):
            self.reactor.at("mute", MUTE_DEADLINE, lambda: link.kill(signal.SIGKILL))
