"""Apps that come and go, and trees that begin."""

from __future__ import annotations

import shutil
from typing import Any

from tests.crash.kind import HEALTH, Kind
from tests.crash.upgrades import Upgrade
from tests.kit.ports import free_port


class Guests(Kind):
    """Beside an app that stays, another one comes and goes."""

    commits = 0

    def allowed(self, number: int) -> set[str]:
        return {"0.0"}

    async def commit(self, guest: str | None) -> str:
        """A state with or without the guest."""
        world = self.stage.world
        apps = {"web": world.app("0.0", health=HEALTH)}
        if guest is not None:
            apps["guest"] = {**world.app(guest, health=HEALTH), "listen": self.port}
        self.guest, self.programs, self.commits = guest, len(apps), self.commits + 1
        return await world.commit(apps, {"number": str(self.commits)})

    async def peace(self) -> None:
        self.port = free_port()
        await super().peace()

    async def begin(self, number: int) -> str:
        return await self.commit(f"{number}.0" if number else None)

    async def reached(self, number: int) -> bool:
        if self.guest is None:
            gone = "guest" not in (await self.box.status())["apps"]
            return gone and await self.serves("0.0") and not await self.answers(self.port)
        return await self.serves("0.0") and await self.serves(self.guest, "guest", port=self.port)


class Install(Guests):
    """The first deploy of an app."""

    async def prepare(self, number: int) -> None:
        if self.guest is not None:
            await self.push(await self.commit(None))
            await self.there(number)


class Removal(Guests):
    """The end of one."""

    async def prepare(self, number: int) -> None:
        await self.push(await self.commit(f"{number}.0"))
        await self.there(number)

    async def begin(self, number: int) -> str:
        return await self.commit(None)


class Guest(Install):
    """A first deploy that is taken back while no agent is there."""

    again = 6

    async def meanwhile(self, number: int) -> None:
        await self.commit(None)


class Cold(Upgrade):
    """The start of a tree on what an earlier one left."""

    lossless = False  # nobody serves while it begins
    heard = (0,)

    def parts(self, number: int) -> dict[str, Any]:
        return {"health": HEALTH}

    async def begin(self, number: int) -> str:
        if number == 0:
            return await super().begin(0)
        await self.box.stop()
        return ""

    async def launch(self, commit: str) -> None:
        try:
            await self.box.start()
        except AssertionError:  # it died over it; who watches the stage starts it again
            if not self.stage.fired:
                raise

    async def deploy(self, number: int) -> None:
        await self.there(number)  # it has been started

    async def reached(self, number: int) -> bool:
        return await self.serves("0.0")


class First(Cold):
    """The start of a tree on nothing, and its first deploy."""

    async def begin(self, number: int) -> str:
        await super().begin(number)
        shutil.rmtree(self.box.data, ignore_errors=True)
        return ""

    async def past(self) -> None:
        await self.begin(0)
        self.box.data.mkdir()
