import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.deploy.graph import Graph, GraphError, Node, backoff
from agent.domain.errors import OperatorNeeded, Permanent, Transient
from agent.domain.model import StepResult

SOON = 10.0  # a deadline that is never reached


async def nothing() -> None:
    """A node's work, done at once."""


@dataclass
class Ear:
    """An observer that remembers."""

    heard: list[tuple[Any, ...]] = field(default_factory=list)

    def started(self, name: str, attempt: int) -> None:
        self.heard.append(("started", name, attempt))

    def retrying(self, name: str, attempt: int, error: Exception, delay: float) -> None:
        self.heard.append(("retrying", name, attempt, delay))

    def finished(self, name: str, result: StepResult, seconds: float, error: BaseException | None) -> None:
        assert seconds >= 0
        self.heard.append(("finished", name, result))

    def undone(self, name: str, error: Exception | None) -> None:
        self.heard.append(("undone", name, error is None))

    def results(self) -> dict[str, StepResult]:
        return {fact[1]: fact[2] for fact in self.heard if fact[0] == "finished"}

    def names(self, kind: str) -> list[str]:
        return [fact[1] for fact in self.heard if fact[0] == kind]


def node(name: str, *needs: str, run: Callable[[], Awaitable[None]] = nothing, **more: Any) -> Node:
    return Node(name=name, needs=needs, run=run, **{"deadline": SOON, **more})


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        raise error

    return run


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("a", "b"), node("b", "c"), node("c", "a")], "a cycle: "),
        ([node("a", "a")], "a cycle: a → a"),
        ([node("a", "ghost")], "a needs ghost, which does not exist"),
        ([node("a"), node("a")], "two nodes are named a"),
        ([node("a", deadline=0)], "bounds nothing"),
        ([node("a", deadline=float("inf"))], "bounds nothing"),
        ([node("a", undo_deadline=float("nan"))], "bounds nothing"),
        ([node("a", retries=-1)], "-1 retries"),
    ],
)
def test_what_is_no_graph_is_refused_by_name(nodes: Sequence[Node], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        Graph(nodes)


async def test_an_empty_graph_is_done_at_once() -> None:
    graph = Graph([])
    await graph.run(Ear())
    assert graph.complete


async def test_branches_run_side_by_side_and_join() -> None:
    both = asyncio.Barrier(2)

    async def meet() -> None:
        await both.wait()  # passes only if the other branch runs at the same time

    ear = Ear()
    graph = Graph([node("join", "left", "right"), node("left", run=meet), node("right", run=meet)])
    await graph.run(ear)
    assert ear.names("started")[-1] == "join"
    assert set(ear.results().values()) == {StepResult.SUCCEEDED}
    assert graph.complete


async def test_a_chain_of_ready_nodes_takes_no_turn_of_the_loop_between_them() -> None:
    turns: list[None] = []

    def spin() -> None:
        turns.append(None)
        spinner[0] = loop.call_soon(spin)

    loop = asyncio.get_running_loop()
    spinner = [loop.call_soon(spin)]
    await Graph([node("0"), *(node(str(i), str(i - 1)) for i in range(1, 50))]).run(Ear())
    spinner[0].cancel()
    assert len(turns) < 6


async def test_the_first_failure_stops_the_others_skips_the_rest_and_undoes_what_began() -> None:
    undone: list[str] = []

    def undo(name: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            undone.append(name)

        return run

    ear = Ear()
    error = Permanent("Broken", "it is broken")
    slow_runs = asyncio.Event()

    async def slow() -> None:
        slow_runs.set()
        await forever()

    async def bad() -> None:
        await slow_runs.wait()
        raise error

    with pytest.raises(Permanent) as caught:
        await Graph(
            [
                node("first", undo=undo("first")),
                node("plain", "first"),
                node("slow", "first", run=slow, undo=undo("slow")),
                node("bad", "plain", run=bad, undo=undo("bad")),
                node("later", "bad", undo=undo("later")),
            ]
        ).run(ear)
    assert caught.value is error
    assert ear.results() == {
        "first": StepResult.SUCCEEDED,
        "plain": StepResult.SUCCEEDED,
        "bad": StepResult.FAILED,
        "slow": StepResult.CANCELLED,
        "later": StepResult.SKIPPED,
    }
    assert undone == ["slow", "bad", "first"] == ear.names("undone")


async def test_the_first_error_is_raised_and_the_others_are_its_notes() -> None:
    async def worse() -> None:
        try:
            await forever()
        finally:
            raise OSError("while cleaning up")

    with pytest.raises(Permanent) as caught:
        await Graph([node("side", run=worse), node("bad", run=raising(Permanent("Bad", "bad")))]).run(Ear())
    assert caught.value.__notes__ == ["side failed too: while cleaning up"]


async def test_a_passed_deadline_is_a_permanent_failure_that_names_the_node() -> None:
    cleaned = []

    async def slow() -> None:
        try:
            await forever()
        finally:
            cleaned.append(True)

    with pytest.raises(Permanent, match=r"slow was not done within 0\.01 s") as caught:
        await Graph([node("slow", run=slow, deadline=0.01, shielded=True)]).run(Ear())
    assert caught.value.reason == "StepTimeout"
    assert cleaned == [True]


async def test_a_timeout_of_the_nodes_own_is_not_taken_for_its_deadline() -> None:
    with pytest.raises(TimeoutError, match="mine"):
        await Graph([node("a", run=raising(TimeoutError("mine")))]).run(Ear())


async def test_transient_failures_are_tried_again_and_each_attempt_is_heard() -> None:
    attempts: list[None] = []

    async def third_time() -> None:
        attempts.append(None)
        if len(attempts) < 3:
            raise Transient("Busy", "503")

    ear = Ear()
    await Graph([node("a", run=third_time, retries=2, retry_delay=lambda _n, _e: 0.0)]).run(ear)
    assert ear.heard == [
        ("started", "a", 1),
        ("retrying", "a", 1, 0.0),
        ("started", "a", 2),
        ("retrying", "a", 2, 0.0),
        ("started", "a", 3),
        ("finished", "a", StepResult.SUCCEEDED),
    ]


@pytest.mark.parametrize("error", [Permanent("No", "no"), OperatorNeeded("Disk", "full"), OSError("odd")])
async def test_only_transient_failures_are_tried_again(error: Exception) -> None:
    ear = Ear()
    with pytest.raises(type(error)):
        await Graph([node("a", run=raising(error), retries=5)]).run(ear)
    assert ear.names("started") == ["a"]


async def test_retries_end_and_the_last_transient_failure_is_raised() -> None:
    ear = Ear()
    with pytest.raises(Transient):
        await Graph(
            [node("a", run=raising(Transient("Busy", "503")), retries=3, retry_delay=lambda _n, _e: 0.0)]
        ).run(ear)
    assert ear.names("started") == ["a"] * 4


async def test_the_other_sides_wish_for_a_later_retry_is_heeded() -> None:
    first = [Transient("Busy", "503", retry_after=0.02)]

    async def once() -> None:
        if first:
            raise first.pop()

    ear = Ear()
    await Graph([node("a", run=once, retries=1, retry_delay=lambda _n, _e: 0.0)]).run(ear)
    assert ("retrying", "a", 1, 0.02) in ear.heard


async def test_a_wait_that_would_outlast_the_deadline_is_not_begun() -> None:
    ear = Ear()
    with pytest.raises(Transient):
        await Graph([node("a", run=raising(Transient("Busy", "503", retry_after=3600)), retries=1)]).run(ear)
    assert ear.names("retrying") == []


async def test_a_deadline_that_ends_a_later_attempt_stays_transient() -> None:
    attempts: list[None] = []

    async def refused_then_hangs() -> None:
        attempts.append(None)
        if len(attempts) == 1:
            raise Transient("Busy", "503")
        await forever()

    with pytest.raises(Transient, match="503") as caught:
        await Graph(
            [node("a", run=refused_then_hangs, retries=1, deadline=0.05, retry_delay=lambda _n, _e: 0.0)]
        ).run(Ear())
    assert caught.value.__notes__ == ["a: 0.05 s were over in attempt 2"]


async def test_an_undo_that_fails_or_hangs_does_not_keep_the_others_from_being_undone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ear = Ear()
    with pytest.raises(Permanent) as caught:
        await Graph(
            [
                node("a", undo=nothing),
                node("b", "a", undo=raising(OSError("no undo"))),
                node("c", "b", undo=forever, undo_deadline=0.01),
                node("d", "c", run=raising(Permanent("Bad", "bad")), undo=nothing),
            ]
        ).run(ear)
    assert [f for f in ear.heard if f[0] == "undone"] == [
        ("undone", "d", True),
        ("undone", "c", False),
        ("undone", "b", False),
        ("undone", "a", True),
    ]
    assert len(caught.value.__notes__) == 2
    assert "undo of b failed" in caplog.text


async def begun(graph: Graph, ear: Ear, name: str) -> asyncio.Task[None]:
    """Start a graph and wait until a node of it has begun."""
    task = asyncio.create_task(graph.run(ear))
    while name not in ear.names("started"):
        await asyncio.sleep(0)
    return task


async def test_cancellation_from_outside_undoes_and_is_passed_on() -> None:
    ear = Ear()
    task = await begun(
        Graph([node("a", undo=nothing), node("b", "a", run=forever), node("c", "b")]), ear, "b"
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ear.results() == {
        "a": StepResult.SUCCEEDED,
        "b": StepResult.CANCELLED,
        "c": StepResult.CANCELLED,
    }
    assert ear.names("undone") == ["a"]


async def test_a_shielded_node_is_waited_for_then_undone() -> None:
    release = asyncio.Event()

    async def migrate() -> None:
        await release.wait()

    ear = Ear()
    graph = Graph(
        [node("m", run=migrate, shielded=True, undo=nothing), node("side", run=forever), node("z", "m")]
    )
    task = await begun(graph, ear, "m")
    task.cancel()
    while "side" not in ear.results():
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()  # impatience changes nothing
    await asyncio.sleep(0)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ear.results()["m"] is StepResult.SUCCEEDED
    assert ear.results()["z"] is StepResult.CANCELLED
    assert ear.names("undone") == ["m"]
    assert not graph.complete


async def test_cancelled_while_the_last_node_is_shielded_everything_stays_done() -> None:
    release = asyncio.Event()

    async def last() -> None:
        await release.wait()

    ear = Ear()
    graph = Graph([node("a", undo=nothing), node("b", "a", run=last, shielded=True, undo=nothing)])
    task = await begun(graph, ear, "b")
    task.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert graph.complete
    assert ear.names("undone") == []


async def test_a_failing_neighbour_does_not_cancel_a_shielded_node() -> None:
    release = asyncio.Event()

    async def fails_then_lets_go() -> None:
        release.set()
        raise Permanent("Bad", "bad")

    async def migrate() -> None:
        await release.wait()
        await asyncio.sleep(0)

    ear = Ear()
    with pytest.raises(Permanent):
        await Graph([node("m", run=migrate, shielded=True), node("bad", run=fails_then_lets_go)]).run(ear)
    assert ear.results()["m"] is StepResult.SUCCEEDED


async def test_undo_is_not_interrupted_by_cancellation() -> None:
    undoing, release = asyncio.Event(), asyncio.Event()

    async def undo() -> None:
        undoing.set()
        await release.wait()

    ear = Ear()
    graph = Graph([node("a", undo=undo), node("b", "a", run=raising(Permanent("Bad", "bad")))])
    task = asyncio.create_task(graph.run(ear))
    await undoing.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, Permanent)
    assert ear.names("undone") == ["a"]


async def test_a_second_cancellation_does_not_break_into_a_node_that_cleans_up() -> None:
    cleaning, release = asyncio.Event(), asyncio.Event()
    cleaned = []

    async def careful() -> None:
        try:
            await forever()
        finally:
            cleaning.set()
            await release.wait()
            cleaned.append(True)

    task = await begun(Graph([node("a", run=careful)]), Ear(), "a")
    task.cancel()
    await cleaning.wait()
    task.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]


async def test_a_cancelled_thing_inside_a_node_is_a_failure_not_a_cancellation() -> None:
    async def waits_for_something_cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    ear = Ear()
    with pytest.raises(RuntimeError, match="a was cancelled from within"):
        await Graph([node("a", run=waits_for_something_cancelled)]).run(ear)
    assert ear.results() == {"a": StepResult.FAILED}


async def test_a_surrounding_timeout_works_as_everywhere() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await Graph([node("a", run=forever)]).run(Ear())


async def test_a_deaf_observer_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(Ear):
        def started(self, name: str, attempt: int) -> None:
            raise ValueError("cannot hear")

    await Graph([node("a")]).run(Deaf())
    assert "an observer failed" in caplog.text


def test_backoff_grows_to_a_bound() -> None:
    error = OSError()
    assert 0.25 <= backoff(1, error) <= 0.5
    assert 15 <= backoff(500, error) <= 30


@dataclass(frozen=True)
class Shape:
    """A random graph: what each node needs, how many turns it takes, whether it fails or is shielded."""

    needs: tuple[tuple[int, ...], ...]
    turns: tuple[int, ...]
    fails: frozenset[int]
    shielded: frozenset[int]
    cancel_at: tuple[int, ...]  # turns of the loop after which the run is cancelled


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    size = draw(st.integers(1, 8))
    numbers = st.integers(0, size - 1)
    return Shape(
        needs=tuple(
            tuple(sorted(draw(st.sets(st.integers(0, i - 1), max_size=3)))) if i else () for i in range(size)
        ),
        turns=tuple(draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))),
        fails=frozenset(draw(st.sets(numbers, max_size=2))),
        shielded=frozenset(draw(st.sets(numbers, max_size=3))),
        cancel_at=tuple(sorted(draw(st.lists(st.integers(0, 30), max_size=3)))),
    )


class Trial:
    """One random graph at work, writing down what really happened."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.done: set[int] = set()
        self.undone: list[int] = []

    def graph(self) -> Graph:
        return Graph(
            [
                node(
                    str(i),
                    *(str(n) for n in self.shape.needs[i]),
                    run=partial(self.work, i),
                    undo=partial(self.undo, i),
                    shielded=i in self.shape.shielded,
                )
                for i in range(len(self.shape.needs))
            ]
        )

    async def work(self, i: int) -> None:
        assert set(self.shape.needs[i]) <= self.done
        self.begun.append(i)
        try:
            for _ in range(self.shape.turns[i]):
                await asyncio.sleep(0)
            if i in self.shape.fails:
                raise Permanent("Planned", str(i))
            self.done.add(i)
        except asyncio.CancelledError:
            assert i not in self.shape.shielded
            await asyncio.sleep(0)  # cleaning up takes a turn too
            raise
        finally:
            self.ended.append(i)

    async def undo(self, i: int) -> None:
        assert sorted(self.begun) == sorted(self.ended)
        await asyncio.sleep(0)
        self.undone.append(i)


async def carry_out(shape: Shape) -> tuple[Trial, Graph, Ear, BaseException | None]:
    trial, ear = Trial(shape), Ear()
    graph = trial.graph()
    loop = asyncio.get_running_loop()
    task = loop.create_task(graph.run(ear))
    await asyncio.sleep(0)
    turn = 0
    for at in shape.cancel_at:
        while turn < at and not task.done():
            await asyncio.sleep(0)
            turn += 1
        task.cancel()
    await asyncio.wait([task])
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task leaked"
    return trial, graph, ear, error


def check(trial: Trial, graph: Graph, ear: Ear, error: BaseException | None) -> None:
    size = len(trial.shape.needs)
    results = ear.results()
    assert len(ear.names("finished")) == len(results) == size, "each node is told once"
    assert sorted(trial.begun) == sorted(trial.ended)
    assert graph.complete == (len(trial.done) == size)
    if graph.complete:
        assert trial.undone == []
        assert error is None or isinstance(error, asyncio.CancelledError)
        return
    assert trial.undone == trial.ended[::-1], "what began is undone in reverse order of ending"
    assert [str(i) for i in trial.undone] == ear.names("undone")
    if isinstance(error, Permanent):
        failed = [int(n) for n in ear.names("finished") if results[n] is StepResult.FAILED]
        assert str(failed[0]) == error.info.message, "the first error is the one raised"
    else:
        assert isinstance(error, asyncio.CancelledError)
    for name, result in results.items():
        assert (int(name) in trial.begun) or result in (StepResult.SKIPPED, StepResult.CANCELLED)


@given(shapes())
@settings(max_examples=400, deadline=None)
def test_random_graphs_keep_order_undo_in_reverse_and_leave_no_task(shape: Shape) -> None:
    check(*asyncio.run(carry_out(shape)))


async def test_a_cancellation_at_every_single_turn_leaves_all_done_or_all_undone() -> None:
    needs: tuple[tuple[int, ...], ...] = ((), (0,), (0,), (1, 2), (3,), (3,), (4, 5))
    endings = set()
    for turn in range(40):
        shape = Shape(needs, (2, 3, 1, 2, 2, 0, 2), frozenset(), frozenset({4}), (turn,))
        trial, graph, ear, error = await carry_out(shape)
        check(trial, graph, ear, error)
        assert graph.complete == (error is None or len(trial.done) == len(needs))
        endings.add(graph.complete)
    assert endings == {True, False}
