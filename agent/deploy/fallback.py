"""What is tried when the newest specification does not work and nothing good is on disk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.deploy.settlement import Settlement
from agent.deploy.wish import Wish
from agent.domain.spec import AppSpec

EARLIER = 3  # distinct specifications tried

Read = Callable[[str, str, int], Awaitable[list[tuple[str, AppSpec]]]]


class Fallback:
    """Up to three earlier, distinct specifications of one app, each tried once for one failing newest.

    Args:
        app: its name.
        read: `read(commit, app, count)` gives earlier specifications from Git, newest first.
        set_aside: whether a specification is in quarantine.
    """

    def __init__(self, app: str, read: Read, set_aside: Callable[[str], bool]) -> None:
        self._app = app
        self._read = read
        self._set_aside = set_aside
        self._newest = ""  # digest of the specification that the candidates stand in for
        self._candidates: list[tuple[str, AppSpec]] = []

    async def next(self, failing: Wish) -> Wish | None:
        """The next one to try in place of a wish that failed; None when there is none left.

        Raises Failure when the history cannot be read; asked again later, it is.
        """
        if not failing.fallback and failing.spec.digest != self._newest:
            found = await self._read(failing.commit, self._app, EARLIER + 1)
            others = [(commit, spec) for commit, spec in found if spec.digest != failing.spec.digest]
            self._candidates, self._newest = others[:EARLIER], failing.spec.digest
        while self._candidates:
            commit, spec = self._candidates.pop(0)
            if not self._set_aside(spec.digest):
                # The sync that wanted the newest has failed already, and that stays its last word.
                nobody = Settlement(failing.sync, commit, [self._app], lambda _: None)
                return Wish(spec, commit, nobody, fallback=True)
        return None
