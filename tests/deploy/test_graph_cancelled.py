"""A graph that is cancelled, from outside or by a node that failed."""

import asyncio

import pytest

from agent.deploy.graph import Graph
from agent.domain.errors import Permanent
from agent.domain.model import StepResult
from tests.deploy.graphs import Ear, forever, node, nothing, raising


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
