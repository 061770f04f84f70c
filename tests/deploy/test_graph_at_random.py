"""Random graphs, cancelled at random turns: all is done, or all is undone in reverse."""

import asyncio
from dataclasses import dataclass
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.deploy.graph import Graph
from agent.domain.errors import Permanent
from agent.domain.model import StepResult
from tests.deploy.graphs import Ear, node


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
