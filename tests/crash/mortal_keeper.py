"""A keeper whose agent dies at an operation: that of `emptybox run`, but for three things.

Its agent is `mortal_agent.py`, which looks into a directory for when to die; it is a copy of this process
instead of a new interpreter (see `nursery.py`); one that died often is not waited for longer the next time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.keeper import loop, spawn
from agent.keeper.main import main
from tests.crash import mortal_agent
from tests.crash.nursery import become

MORTAL = "the mortal agent"


def keep(fate: str, words: Sequence[str]) -> int:
    """Keep an agent for `words`, a verb and flags, whose fate is told in the directory `fate`."""
    loop.BACKOFF = (0.05, 0.05)
    execute = spawn._exec

    def become_or_execute(stage: list[str], order: Mapping[str, Any]) -> None:
        if order["argv"][0] == MORTAL:
            become(order["environment"], lambda: mortal_agent.live(fate, words), "mortal_agent")
        execute(stage, order)

    spawn._exec = become_or_execute  # type: ignore[assignment]
    return main(words, [MORTAL, *words])
