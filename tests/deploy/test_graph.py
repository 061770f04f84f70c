import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from agent.deploy.graph import Graph, GraphError, Node, backoff
from agent.domain.errors import OperatorNeeded, Permanent, Transient
from agent.domain.model import StepResult
from tests.deploy.graphs import Ear, forever, node, nothing, raising


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
