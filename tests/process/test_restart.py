from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.domain.spec import RestartSpec
from agent.process.restart import JITTER, RestartAction, decide

times = st.floats(0.0, 1000.0)
specs = st.builds(
    RestartSpec,
    backoff=st.floats(0.01, 10.0),
    backoff_max=st.floats(10.0, 60.0),
    budget=st.integers(0, 10),
    window=st.floats(1.0, 300.0),
    cooldown=st.floats(0.0, 600.0),
)


def test_the_delay_doubles_up_to_its_maximum_and_then_comes_the_cooldown() -> None:
    spec = RestartSpec(backoff=0.5, backoff_max=3.0, budget=5, window=60.0, cooldown=300.0)
    exits: list[float] = []
    decisions = []
    for at in range(6):
        exits.append(float(at))
        decisions.append(decide(spec, exits, float(at)))
    assert [d.delay for d in decisions] == [0.5, 1.0, 2.0, 3.0, 3.0, 300.0]
    assert [d.action for d in decisions] == [RestartAction.RESTART] * 5 + [RestartAction.COOLDOWN]
    assert decisions[1].reason == "restart 2 of 5 allowed within 60 s"
    assert decisions[5].reason == "ended 6 times within 60 s: paused for 300 s"


def test_a_child_that_lived_long_starts_with_a_fresh_budget() -> None:
    spec = RestartSpec(budget=1, window=60.0)
    assert decide(spec, [0.0, 10.0], 10.0).action is RestartAction.COOLDOWN
    assert decide(spec, [0.0, 10.0, 70.0], 70.0).action is RestartAction.RESTART


@given(specs, st.lists(times, max_size=40), st.floats(0.0, 1.0))
def test_every_delay_is_within_its_bounds(spec: RestartSpec, history: list[float], jitter: float) -> None:
    now = max(history, default=0.0)
    decision = decide(spec, sorted(history), now, jitter)
    bound = spec.cooldown if decision.action is RestartAction.COOLDOWN else spec.backoff_max
    assert 0.0 <= decision.delay <= bound * (1 + JITTER)
    assert decision.delay >= decide(spec, sorted(history), now).delay


@given(specs, st.lists(times, min_size=1, max_size=40))
def test_no_window_holds_more_restarts_than_the_budget(spec: RestartSpec, ends: list[float]) -> None:
    ends.sort()
    restarts = [
        now
        for count, now in enumerate(ends, 1)
        if decide(spec, ends[:count], now).action is RestartAction.RESTART
    ]
    for now in restarts:
        assert sum(1 for at in restarts if 0 <= now - at < spec.window) <= spec.budget


@given(specs, st.lists(times, min_size=1, max_size=20))
def test_more_ends_never_mean_a_shorter_backoff(spec: RestartSpec, ends: list[float]) -> None:
    ends.sort()
    decisions = [decide(spec, ends[-count:], ends[-1]) for count in range(1, len(ends) + 1)]
    delays = [d.delay for d in decisions if d.action is RestartAction.RESTART]
    assert delays == sorted(delays)
