"""Nodes for graphs in tests, and an observer that remembers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from agent.deploy.graph import Node
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
