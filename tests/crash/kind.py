"""What all kinds of deploys have in common, in which somebody dies; each is made again and again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress

import aiohttp

from tests.crash.stage import DEADLINE, Stage

HEALTH = {"http": "/healthz", "interval": "20ms", "deadline": "20s", "probation": "100ms"}


class Kind(ABC):
    """Deploy 0 is made in peace; each later one is one more chance to die."""

    programs = 1  # apps with a process, once a deploy has ended
    lossless = True  # whether no request may be lost while only the agent dies
    # Of replays (see `replay`):
    heard: tuple[int, ...] = (1,)  # deploys that are recorded; the ones before are made in peace
    again = 0  # moments after which a second power cut is tried
    alone = True  # whether what is left by the first one is looked at

    def __init__(self, stage: Stage) -> None:
        self.stage, self.box = stage, stage.box
        self.at: int | str = 0  # where somebody is to die
        self.whom = "agent"

    @abstractmethod
    async def begin(self, number: int) -> str:
        """Commit this deploy; returns the commit."""

    @abstractmethod
    async def reached(self, number: int) -> bool:
        """Whether what was wanted is there."""

    def allowed(self, number: int) -> set[str]:
        """What a client may be told while this deploy is under way."""
        return {f"{number - 1}.0", f"{number}.0"}

    def first_death(self, number: int) -> int | str:
        """The operation before which somebody dies first; the only one, but for those who die twice."""
        return self.at

    async def prepare(self, number: int) -> None:
        """What is to be done in peace before this deploy."""
        return

    async def launch(self, commit: str) -> None:
        """Let it begin: tell the agent. The next one is held up until `meanwhile` is over."""
        self.stage.hold(True)
        await self.push(commit)

    async def meanwhile(self, number: int) -> None:
        """Change the state while nobody is there to see it: after the death, before the next agent."""
        return

    async def peace(self) -> None:
        """Deploy 0."""
        await self.begin(0)
        await self.box.start()
        await self.there(0)

    async def past(self) -> None:
        """All before the first deploy that is recorded; nobody runs then."""
        await self.peace()
        for number in range(1, self.heard[0]):
            await self.deploy(number)
        await self.box.stop()

    async def deploy(self, number: int) -> None:
        """One more, in peace."""
        await self.prepare(number)
        await self.push(await self.begin(number))
        await self.there(number)

    async def outset(self) -> None:
        """Forget what was done outside by agents whose disk is what it was before them."""
        return

    async def there(self, number: int) -> None:
        """Wait until what was wanted is there."""

        async def reached() -> bool:
            try:
                return await self.reached(number)
            except aiohttp.ClientError:
                return False

        await self.box.until(reached, DEADLINE)

    async def wrong(self) -> list[str]:
        """What is not as it should be, that only this kind knows of."""
        return []

    async def push(self, commit: str) -> None:
        """Tell the agent, which may die over it."""
        with suppress(aiohttp.ClientError):
            await self.box.webhook(commit)

    async def runs(self, version: str, app: str = "web") -> list[str]:
        """Results of the app's runs of a version, newest first."""
        return [r["result"] for r in await self.box.history() if (r["version"], r["app"]) == (version, app)]

    async def serves(
        self, version: str, app: str = "web", state: str = "running", port: int | None = None
    ) -> bool:
        """Whether it is current and good, and told so, and really answers."""
        told = await self.box.app(app)
        right = told and told["state"] == state and not told.get("run")
        pairs = right and all((told[pair] or {}).get("version") == version for pair in ("current", "good"))
        return bool(pairs) and await self.answers(port or self.box.port) == f"{version}\n"

    async def answers(self, port: int) -> str:
        """What a port answers; "" when nobody listens there, "nothing" when nobody is there to accept."""
        url, patience = f"http://127.0.0.1:{port}/", aiohttp.ClientTimeout(total=2)
        try:
            async with aiohttp.ClientSession(timeout=patience) as session, session.get(url) as answer:
                return await answer.text()
        except aiohttp.ClientConnectorError:
            return ""
        except TimeoutError:
            return "nothing"
