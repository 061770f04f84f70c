"""A task graph: nodes with needs, deadlines, retries and undo, carried out by one TaskGroup.

States of a node, and who moves it:

    waiting ──needs done──► running ──► succeeded ─┐
       │                       │  ▲                ├──undo──► undone
       │                       │  └─transient─┐    │
       │                       ├──► failed ───┴────┤
       │                       └──► cancelled ─────┘
       └──a failure elsewhere──► skipped      (cancelled, when the graph was cancelled from outside)

| what happens | running nodes | waiting nodes | then |
|---|---|---|---|
| a node fails | cancelled and awaited; shielded ones are waited for | skipped | undo, the error is raised |
| cancelled from outside | the same | cancelled | undo, CancelledError |
| cancelled from outside, yet every node succeeds | | | no undo, `complete` is true, CancelledError |

Undo runs in reverse order of ending and covers each node that began, failed and cancelled ones too, so an
undo has to bear a half-done node. Cancellation from outside never interrupts it; its deadlines do.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Protocol

from agent.domain.errors import Failure, Permanent, Transient
from agent.domain.model import StepResult
from agent.kit.standstill import Timeout

log = logging.getLogger(__name__)


class GraphError(ValueError):
    """These nodes are no graph: a cycle, an unknown or a double name, a bound that bounds nothing."""


def backoff(attempt: int, _error: Exception) -> float:
    """Seconds before the next attempt: 0.5, 1, 2, ... to 30, less a random part of up to a half."""
    return min(30.0, 0.5 * 2.0 ** min(attempt - 1, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One thing to do.

    `deadline` (seconds) bounds the whole node, its retries and the waits between them included.
    `retries` counts further attempts after a `Transient` failure; `retry_delay(attempt, error)` gives
    the seconds to wait, and a failure's own `retry_after` wins when it is longer. `shielded`: once
    begun it is never cancelled, neither from outside nor by a failing neighbour; only its deadline is.
    `late` is the kind of failure that passing the deadline is.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    needs: tuple[str, ...] = ()
    deadline: float
    retries: int = 0
    retry_delay: Callable[[int, Exception], float] = backoff
    undo: Callable[[], Awaitable[None]] | None = None
    undo_deadline: float = 60.0
    shielded: bool = False
    late: type[Failure] = Permanent


class Observer(Protocol):
    """Hears what happens, at once and in order. One that raises is logged and changes nothing."""

    def started(self, name: str, attempt: int) -> None:
        """An attempt begins; the first is 1."""

    def retrying(self, name: str, attempt: int, error: Exception, delay: float) -> None:
        """Attempt `attempt` failed; the next begins in `delay` seconds."""

    def finished(self, name: str, result: StepResult, seconds: float, error: BaseException | None) -> None:
        """The node ended, once each: succeeded, failed, cancelled or skipped."""

    def undone(self, name: str, error: Exception | None) -> None:
        """The node's undo ended; `error` says that it failed."""


class Graph:
    """A checked set of nodes. `complete` tells whether every node of the last run succeeded.

    `timeout` says when so many seconds are over.
    """

    def __init__(self, nodes: Sequence[Node], timeout: Timeout = asyncio.timeout) -> None:
        """Raises GraphError."""
        self.nodes = tuple(nodes)
        self.complete = False
        self._timeout = timeout
        _check(self.nodes)

    async def run(self, observer: Observer) -> None:
        """Do all nodes, each the moment its needs are done; or undo what was begun.

        Raises the first node's error (others are its notes): a Failure, one of kind `late` ("StepTimeout")
        for a deadline, or whatever a node raised. CancelledError when cancelled from outside.
        """
        self.complete = False
        execution = _Execution(self.nodes, observer, self._timeout)
        try:
            await execution.run()
        finally:
            self.complete = execution.complete


def _check(nodes: Sequence[Node]) -> None:
    names: set[str] = set()
    for node in nodes:
        if node.name in names:
            raise GraphError(f"two nodes are named {node.name}")
        names.add(node.name)
        for bound in (node.deadline, node.undo_deadline):
            if not (bound > 0 and math.isfinite(bound)):
                raise GraphError(f"{node.name}: a deadline of {bound} seconds bounds nothing")
        if node.retries < 0:
            raise GraphError(f"{node.name}: {node.retries} retries")
    for node in nodes:
        for need in node.needs:
            if need not in names:
                raise GraphError(f"{node.name} needs {need}, which does not exist")
    try:
        TopologicalSorter({node.name: node.needs for node in nodes}).prepare()
    except CycleError as error:
        raise GraphError("a cycle: " + " → ".join(error.args[1])) from None


class _Execution:
    """One run of a graph. Nodes never raise into the TaskGroup: what they raise is kept here."""

    def __init__(self, nodes: Sequence[Node], observer: Observer, timeout: Timeout) -> None:
        self._observer = observer
        self._timeout = timeout
        self._waiting = {node.name: len(set(node.needs)) for node in nodes}  # needs not yet done
        self._nodes = {node.name: node for node in nodes}
        self._followers: dict[str, list[Node]] = {node.name: [] for node in nodes}
        for node in nodes:
            for need in set(node.needs):
                self._followers[need].append(node)
        self._running: dict[str, asyncio.Task[None]] = {}  # nodes that have begun and not ended
        self._ended: list[Node] = []  # in order of ending: what undo walks backwards
        self._errors: list[tuple[str, Exception]] = []
        self._aborting = False
        self._cancelled: asyncio.CancelledError | None = None
        self._succeeded = 0
        self._threads = 0  # tasks of this execution that have not ended
        self._idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def complete(self) -> bool:
        return self._succeeded == len(self._nodes)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._group:
            for node in self._nodes.values():
                if not node.needs:
                    self._spawn(self._follow(node), node.name)
            await self._outlast()
            if not self.complete:
                self._skip_the_rest()
                self._spawn(self._undo(), "undo")
                await self._outlast()
        first = self._errors[0][1] if self._errors else None
        for name, error in self._errors[1:]:
            assert first is not None
            first.add_note(f"{name} failed too: {error}")
        if self._cancelled is not None:
            raise self._cancelled from first
        if first is not None:
            raise first

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._threads += 1
        self._group.create_task(work, name=name).add_done_callback(self._thread_ended)

    def _thread_ended(self, _task: asyncio.Task[None]) -> None:
        self._threads -= 1
        if not self._threads and not self._idle.done():
            self._idle.set_result(None)

    async def _outlast(self) -> None:
        """Wait until no task is left. Cancellation is kept for the end: it stops the nodes, not the wait."""
        while self._threads:
            self._idle = asyncio.get_running_loop().create_future()
            try:
                await self._idle
            except asyncio.CancelledError as error:
                self._cancelled = self._cancelled or error
                self._abort()

    def _abort(self) -> None:
        if self._aborting:
            return  # a second cancellation would break into a node that is cleaning up
        self._aborting = True
        # A task that has not begun its node yet is left alone: it sees `_aborting` and begins nothing.
        for name, task in self._running.items():
            if not self._nodes[name].shielded:
                task.cancel()

    async def _follow(self, node: Node) -> None:
        """Do a node, then those it was the last need of: one in this very task, the others beside it."""
        while not self._aborting:
            if not await self._do(node):
                return
            self._succeeded += 1
            ready = []
            for follower in self._followers[node.name]:
                self._waiting[follower.name] -= 1
                if not self._waiting[follower.name]:
                    ready.append(follower)
            if not ready:
                return
            for other in ready[1:]:
                self._spawn(self._follow(other), other.name)
            node = ready[0]

    async def _do(self, node: Node) -> bool:
        """One node from begin to end; whether it succeeded."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self._running[node.name] = task
        result = StepResult.FAILED
        problem: Exception | None = None
        try:
            await self._attempt(node, begun + node.deadline)
            result = StepResult.SUCCEEDED
        except asyncio.CancelledError as error:
            if self._aborting and not node.shielded:
                result = StepResult.CANCELLED
            else:  # something the node awaits was cancelled, not the node
                problem = RuntimeError(f"{node.name} was cancelled from within")
                problem.__cause__ = error
        except Exception as error:
            problem = error
        finally:
            del self._running[node.name]
            self._ended.append(node)
            if problem is not None:
                self._errors.append((node.name, problem))
            self._tell(self._observer.finished, node.name, result, loop.time() - begun, problem)
            if result is not StepResult.SUCCEEDED:
                self._abort()
        return result is StepResult.SUCCEEDED

    async def _attempt(self, node: Node, until: float) -> None:
        """Run a node until it succeeds, fails for good, or `until` (loop time) has come."""
        failure: Transient | None = None
        attempt = 1
        try:
            async with self._timeout(until - asyncio.get_running_loop().time()) as scope:
                while True:
                    self._tell(self._observer.started, node.name, attempt)
                    try:
                        return await node.run()
                    except Transient as error:
                        failure = error
                        delay = max(node.retry_delay(attempt, error), error.retry_after or 0.0)
                        over = asyncio.get_running_loop().time() + delay >= until
                        if attempt > node.retries or over or self._aborting:
                            raise
                        self._tell(self._observer.retrying, node.name, attempt, error, delay)
                    await asyncio.sleep(delay)
                    if self._aborting:
                        raise failure
                    attempt += 1
        except TimeoutError as error:
            if not scope.expired():
                raise  # the node's own
            if failure is not None:  # the cause is what failed, and it is not for good
                failure.add_note(f"{node.name}: {node.deadline:g} s were over in attempt {attempt}")
                raise failure from error
            raise node.late(
                "StepTimeout",
                f"{node.name} was not done within {node.deadline:g} s",
                where=node.name,
                remedy="find out why it takes so long, or give it more time",
            ) from error

    def _skip_the_rest(self) -> None:
        result = StepResult.CANCELLED if self._cancelled else StepResult.SKIPPED
        begun = {node.name for node in self._ended}
        for name in self._nodes:
            if name not in begun:
                self._tell(self._observer.finished, name, result, 0.0, None)

    async def _undo(self) -> None:
        for node in reversed(self._ended):
            if node.undo is None:
                continue
            problem: Exception | None = None
            try:
                async with self._timeout(node.undo_deadline):
                    await node.undo()
            except (Exception, asyncio.CancelledError) as error:  # nobody cancels this task: it is the undo's
                problem = error if isinstance(error, Exception) else RuntimeError("cancelled from within")
                log.error("undo of %s failed: %r", node.name, error, exc_info=error)
                if self._errors:
                    self._errors[0][1].add_note(f"undo of {node.name} failed: {problem!r}")
            self._tell(self._observer.undone, node.name, problem)

    def _tell(self, hear: Callable[..., None], *facts: object) -> None:
        try:
            hear(*facts)
        except Exception:
            log.exception("an observer failed")
