"""The word that is left for a lane: the newest wish, a removal, the end; and work done while word comes.

At most one wish waits: the newest wins, and the one it replaces is settled as superseded. Nobody who
waits for a wish or a removal is ever forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from agent.deploy.settlement import Settlement
from agent.deploy.wish import Wish
from agent.domain.model import SyncResult
from agent.kit.tasks import Owned, stop

T = TypeVar("T")


class Word:
    """See the module. `tasks` own the work that is accompanied."""

    def __init__(self, app: str, tasks: Owned) -> None:
        self.ending = False
        self.leaving: Settlement | None = None
        self._app = app
        self._tasks = tasks
        self._wish: Wish | None = None
        self._handled: Wish | None = None
        self._wake = asyncio.Event()

    # -- leaving it --------------------------------------------------------------------------------

    def want(self, wish: Wish) -> None:
        """A sync wants this."""
        if self._wish is not None and self._wish is not self._handled:
            self._wish.settle(SyncResult.SUPERSEDED)
        self._settle_leaving(SyncResult.SUPERSEDED)
        self._wish = wish
        self.wake()

    def remove(self, settlement: Settlement) -> None:
        """The app is gone from the state."""
        self._settle_leaving(SyncResult.SUPERSEDED)
        self.leaving = settlement
        self.wake()

    def end(self) -> None:
        """The agent ends for good."""
        self.ending = True
        self.wake()

    def wake(self) -> None:
        """There is something to look at."""
        self._wake.set()

    # -- hearing it --------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Until there is something to look at."""
        await self._wake.wait()
        self._wake.clear()

    @property
    def waits(self) -> bool:
        """Whether something was left that nobody has looked at."""
        return self.ending or self.leaving is not None or self._wish is not self._handled

    @property
    def handled(self) -> Wish | None:
        """The wish that was taken last."""
        return self._handled

    def take(self) -> Wish | None:
        """The wish that waits, if one does."""
        if self._wish is self._handled:
            return None
        self._handled = self._wish
        return self._wish

    def take_leaving(self) -> Settlement | None:
        """The removal that waits, if one does."""
        leaving, self.leaving = self.leaving, None
        return leaving

    async def ends(self) -> bool:
        """Whether the agent ends."""
        return self.ending

    async def came(self) -> bool:
        """Whether something was left that nobody has looked at."""
        return self.waits

    async def newer(self, wish: Wish) -> bool:
        """See `news`."""
        return self.news(wish)

    def news(self, wish: Wish) -> bool:
        """Whether something else is wanted than the wish that was taken. One for the same joins it."""
        newer = self._wish
        if newer is not None and newer is not wish and newer.spec.digest == wish.spec.digest:
            wish.join(newer)
            self._wish = wish
        return self.ending or self.leaving is not None or self._wish is not wish

    def put_off(self, wish: Wish) -> bool:
        """Take this wish again later; whether it is still the newest word."""
        still = self._wish is wish and self.leaving is None
        if still:
            self._handled = None
            self.wake()
        return still

    def instead(self, wish: Wish) -> None:
        """Do this in place of the wish that was taken, unless a newer one waits."""
        if self._wish is self._handled:
            self._wish = wish
            self.wake()

    def forget(self) -> None:
        """The app was removed: what was wanted of it before is nobody's any more."""
        if self._wish is not None and self._wish is not self._handled:
            self._wish.settle(SyncResult.SUPERSEDED)
        self._wish = self._handled = None

    @property
    def wanted(self) -> bool:
        """Whether there is a wish, taken or not."""
        return self._wish is not None

    def interrupt(self) -> None:
        """The agent ends: tell everyone who still waits."""
        if self._wish is not None and self._wish.open:
            self._wish.settle(SyncResult.INTERRUPTED)
        self._settle_leaving(SyncResult.INTERRUPTED)

    @property
    def given_up(self) -> SyncResult:
        """The word for a wish that is not followed any more."""
        return SyncResult.INTERRUPTED if self.ending else SyncResult.SUPERSEDED

    def _settle_leaving(self, result: SyncResult) -> None:
        leaving = self.take_leaving()
        if leaving is not None:
            leaving.settle(self._app, result)

    # -- work while it comes -----------------------------------------------------------------------

    async def accompany(
        self, work: Coroutine[Any, Any, T], stops: Callable[[], Awaitable[bool]]
    ) -> asyncio.Task[T]:
        """Do work while word may be left: at each one `stops` says whether it ends the work.

        Returns the task, ended or cancelled and ended. Raises what an ended one raised.
        """
        task = self._tasks.start(work, name="work")
        try:
            while not task.done():
                wake = self._tasks.start(self._wake.wait(), name="wake")
                await asyncio.wait({task, wake}, return_when=asyncio.FIRST_COMPLETED)
                wake.cancel()
                if task.done():
                    break
                self._wake.clear()
                if await stops():
                    await stop(task)
        finally:
            self.wake()  # what was heard here is looked at again
            if not task.done():
                await stop(task)
        if not task.cancelled():
            task.result()
        return task
