"""An agent that begins on a disk that is full, read-only or failing: apps run that need looking after.

What it cannot have it goes without: the journal is one in memory, the Unix socket is not there, leftovers
stay. It starts what has to be started, tells how things are, and begins no run (*Paused*), for none could be
recorded. As soon as all can be had it makes way for an agent that has it; no child is touched by that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from agent.deploy.journal import Journal
from agent.deploy.layout import DataDirectory
from agent.deploy.operator import PAUSE
from agent.domain.errors import Failure

log = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two looks whether all can be had by now


class Makeshift:
    """What this agent had to begin without. `allowed`: apps were deployed here before.

    `unswept` is why the store could not be put in order, which is raised again where nothing is allowed.
    """

    def __init__(self, data: DataDirectory, journal: Journal, unswept: OSError | None, allowed: bool) -> None:
        self._places = (data.root, data.store)
        self._journal = journal
        self._allowed = allowed
        self._borne = False
        if unswept is not None:
            self.bear(unswept)
        if journal.makeshift is not None:
            self._borne = True
            journal.put_fact(PAUSE, f"the journal cannot be used: {journal.makeshift.info.message}")

    @property
    def paused_by(self) -> str:
        """Who wanted the pause that the journal knows of."""
        return "an earlier agent" if self._journal.makeshift is None else "this agent itself"

    def bear(self, error: Failure | OSError) -> None:
        """Go on without something, or raise the error where nothing needs looking after."""
        if not self._allowed:
            raise error
        self._borne = True
        log.error("going on without: %s", error)

    async def over(self) -> None:
        """Wait until all can be had; for ever, when nothing is missing."""
        if not self._borne:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(EVERY)
            if await asyncio.to_thread(_writable, self._places) and await self._journal.usable():
                log.info("the disk is well again")
                return


def _writable(places: tuple[Path, ...]) -> bool:
    for place in places:
        probe = place / f".{os.getpid()}.probe.tmp"
        try:
            probe.write_bytes(b"x" * 4096)
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
    return True
