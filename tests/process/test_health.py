from __future__ import annotations

import asyncio

import msgspec
import pytest

from agent.domain.errors import FailureInfo, Permanent
from agent.domain.spec import HealthSpec, ProbeKind
from agent.process import health
from agent.process.command import CommandResult
from agent.process.health import until_healthy, watch
from agent.process.probe import ProbeTarget

EXEC = HealthSpec(
    kind=ProbeKind.EXEC,
    command=("check",),
    interval=0.01,
    timeout=5.0,
    deadline=20.0,
    probation=60.0,
    failures=3,
)


class Script:
    """A probed program that passes or fails as written, and then stays with the last."""

    def __init__(self, verdicts: str) -> None:
        self.verdicts = verdicts  # "+" passes, "-" fails
        self.asked: list[float] = []
        self.alive = True

    async def execute(self, argv: tuple[str, ...], timeout: float) -> CommandResult:
        self.asked.append(asyncio.get_running_loop().time())
        passes = self.verdicts[min(len(self.asked), len(self.verdicts)) - 1] == "+"
        return CommandResult(0 if passes else 1, None, ())

    @property
    def target(self) -> ProbeTarget:
        return ProbeTarget(alive=lambda: self.alive, execute=self.execute)


def spec(**more: object) -> HealthSpec:
    return msgspec.structs.replace(EXEC, **more)


async def test_the_first_probe_is_sent_at_once_and_may_be_the_only_one() -> None:
    script = Script("+")
    found = await until_healthy(spec(interval=1000.0), script.target, asyncio.Event())
    assert found.probes == 1
    assert found.detail.startswith("check ended with exit code 0 in ")


async def test_early_probes_are_frequent_whatever_the_interval() -> None:
    script = Script("-----+")
    async with asyncio.timeout(20):
        assert (await until_healthy(spec(interval=1000.0), script.target, asyncio.Event())).probes == 6
    pauses = [b - a for a, b in zip(script.asked, script.asked[1:], strict=False)]
    assert all(pause >= health.FIRST_PAUSE * 2**n for n, pause in enumerate(pauses))


async def test_successes_count_only_in_a_row() -> None:
    script = Script("++-+-+++")
    assert (await until_healthy(spec(successes=3), script.target, asyncio.Event())).probes == 8


async def test_a_child_that_never_gets_healthy_fails_at_the_deadline_with_the_last_reason() -> None:
    with pytest.raises(Permanent) as caught:
        await until_healthy(spec(deadline=0.1), Script("-").target, asyncio.Event())
    assert caught.value.reason == "ProbeFailed"
    assert "not healthy within 0.1 s: check ended with exit code 1" in str(caught.value)
    assert caught.value.info.where == "health.exec check"


async def test_a_child_that_ends_fails_at_once() -> None:
    ended = asyncio.Event()
    script = Script("-")
    task = asyncio.ensure_future(until_healthy(spec(deadline=1000.0, interval=1000.0), script.target, ended))
    while not script.asked:
        await asyncio.sleep(0)
    ended.set()
    with pytest.raises(Permanent) as caught:
        async with asyncio.timeout(20):
            await task
    assert caught.value.reason == "ChildExited"


async def test_a_probe_that_hangs_does_not_outlive_the_child() -> None:
    ended = asyncio.Event()
    cancelled = asyncio.Event()

    async def hangs(argv: tuple[str, ...], timeout: float) -> CommandResult:
        ended.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    with pytest.raises(Permanent, match="ended before it was healthy"):
        await until_healthy(spec(deadline=1000.0), ProbeTarget(execute=hangs), ended)
    assert cancelled.is_set()


async def test_alive_is_having_lived_long_enough() -> None:
    lived = HealthSpec(kind=ProbeKind.ALIVE, alive=0.05, deadline=20.0)
    assert (await until_healthy(lived, ProbeTarget(), asyncio.Event())).seconds == 0.05
    ended = asyncio.Event()
    ended.set()
    with pytest.raises(Permanent) as caught:
        await until_healthy(lived, ProbeTarget(), ended)
    assert caught.value.reason == "ChildExited"


async def test_a_verdict_changes_only_after_enough_failures_and_back_after_enough_successes() -> None:
    script = Script("+--+---" + "+-++" + "---")
    seen: list[FailureInfo | None] = []
    async with asyncio.timeout(20):
        async for change in watch(spec(successes=2), script.target):
            seen.append(change)
            if len(seen) == 3:
                break
    assert len(script.asked) == 14
    assert [change and change.reason for change in seen] == ["ProbeFailed", None, "ProbeFailed"]
    assert seen[0] is not None
    assert seen[0].message.startswith(
        "3 probes in a row failed, the last one with: check ended with exit code 1"
    )


async def test_a_calm_child_is_probed_rarely_and_a_suspected_one_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    script = Script("++-+--" + "-")
    async for _ in watch(spec(probation=0.0, interval=0.5), script.target):
        break
    assert [pause == 0.5 for pause in pauses] == [False, False, False, True, False, True, True]
    assert max(pauses) <= health.CALM
    calm = [pause for pause in pauses if pause != 0.5]
    assert max(calm) - min(calm) < 1.0 or min(calm) < 1.0, "all in the same moment"


async def test_a_watch_ends_with_the_child_and_says_nothing_about_it() -> None:
    script = Script("-")
    script.alive = False
    assert [change async for change in watch(EXEC, script.target)] == []
    assert [change async for change in watch(HealthSpec(kind=ProbeKind.ALIVE), ProbeTarget())] == []
