"""The door to this package: hears facts, leaves letters, delivers them."""

from __future__ import annotations

from typing import NoReturn

from agent.config import Settings
from agent.domain.events import Bus
from agent.notify.channels import chats, status_channel
from agent.notify.courier import Courier
from agent.notify.outbox import Outbox
from agent.notify.teller import Teller

FLUSH = 3.0  # seconds that the last letters are given at the end; what is left goes out at the next start


class Post:
    """A teller and a courier, as the settings want them. Raises OperatorNeeded("NoticesInvalid")."""

    def __init__(self, settings: Settings, bus: Bus, outbox: Outbox) -> None:
        forge, told = status_channel(settings), chats(settings)
        self._teller = Teller(
            bus,
            outbox,
            host=settings.name,
            labels=settings.labels,
            statuses=forge is not None,
            chats=told,
        )
        self._courier = Courier(outbox, [*([forge] if forge is not None else []), *told], bus)

    async def run(self) -> NoReturn:
        """Deliver for ever."""
        await self._courier.run()

    async def flushed(self) -> None:
        """Give what was never tried a moment, before the end."""
        await self._courier.flushed(FLUSH)

    def close(self) -> None:
        """Hear no more."""
        self._teller.unsubscribe()
