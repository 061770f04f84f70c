"""Several places of one repository: the first that answers is asked, and stayed with.

The first place is tried again after `RETURN` seconds on another one. A place may take its share of the
caller's time and no more, so that one that swallows packets does not use it up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from agent.domain.errors import Failure, Permanent, Transient
from agent.source.git.protocol import Ref
from agent.source.git.transport import Objects, Repository

log = logging.getLogger(__name__)
RETURN = 300.0
T = TypeVar("T")


class Failover:
    """`transport.Repository` over others, in order of preference; `share` are seconds for each."""

    def __init__(
        self, places: Sequence[Repository], share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._places = places
        self._share = share
        self._clock = clock
        self._at = 0  # the place that answered last
        self._left = 0.0  # when the first one was left

    @property
    def where(self) -> str:
        """The first place: what all of them are named by."""
        return self._places[0].where

    async def refs(self, names: Collection[str]) -> Mapping[str, Ref]:
        """What these names point to at the first place that answers."""
        if self._at and self._clock() - self._left > RETURN:
            self._at = 0
        return await self._first(lambda place: place.refs(names))

    async def take(self, want: str, *, depth: int, trees: bool = True) -> Objects:
        """A commit from the first place that has it, beginning with the one that answered last."""
        return await self._first(lambda place: place.take(want, depth=depth, trees=trees))

    async def aclose(self) -> None:
        """Close all."""
        for place in self._places:
            await place.aclose()

    async def _first(self, ask: Callable[[Repository], Awaitable[T]]) -> T:
        order = [*range(self._at, len(self._places)), *range(self._at)]
        failures: list[Failure] = []
        for at in order:
            place = self._places[at]
            try:
                async with asyncio.timeout(self._share):
                    answer = await ask(place)
            except TimeoutError:
                message = f"the repository did not answer within {self._share:g} s"
                failures.append(Transient("GitTimeout", message, where=place.where))
            except Permanent:
                raise
            except Failure as failure:
                failures.append(failure)
            else:
                self._stay(at, failures)
                return answer
        raise failures[0]

    def _stay(self, at: int, failures: list[Failure]) -> None:
        if at != self._at:
            log.warning("going on at %s: %s", self._places[at].where, failures[0] if failures else "")
            if self._at == 0:
                self._left = self._clock()
            self._at = at
