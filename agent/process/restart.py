"""Whether and when a child that ended by itself is started again. Pure: times in, a decision out.

ended --budget left--> wait a growing backoff --> start again
  +--budget spent--> wait the cooldown --> start again, with a fresh budget
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.domain.spec import RestartSpec

JITTER = 0.1  # of the delay, at most: so that hosts with one broken database do not knock together


class RestartAction(StrEnum):
    """What comes next."""

    RESTART = "restart"
    COOLDOWN = "cooldown"


@dataclass(frozen=True, slots=True)
class Decision:
    """Wait `delay` seconds, then start it again. `reason` says why, for people."""

    action: RestartAction
    delay: float
    reason: str


def decide(spec: RestartSpec, history: Sequence[float], now: float, jitter: float = 0.0) -> Decision:
    """What follows from a child's ends.

    Args:
        spec: the bounds.
        history: when it ended by itself, ascending, this time included, on the same clock as `now`.
        now: the present, in seconds.
        jitter: 0 to 1, random; lengthens the delay by up to a tenth.

    Of any `window` seconds at most `budget` ends are answered by a restart without a cooldown.
    """
    recent = sum(1 for at in history if now - at < spec.window)
    stretch = 1.0 + JITTER * jitter
    if recent > spec.budget:
        return Decision(
            RestartAction.COOLDOWN,
            spec.cooldown * stretch,
            f"ended {recent} times within {spec.window:g} s: paused for {spec.cooldown:g} s",
        )
    # The exponent is bounded where 2.0 ** n would overflow; every backoff has reached its maximum by then.
    doubled = spec.backoff * 2.0 ** min(max(recent - 1, 0), 64)
    return Decision(
        RestartAction.RESTART,
        min(doubled, spec.backoff_max) * stretch,
        f"restart {max(recent, 1)} of {spec.budget} allowed within {spec.window:g} s",
    )
