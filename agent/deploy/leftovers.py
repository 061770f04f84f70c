"""What an earlier agent left with the keeper: children that go on, and commands that must not."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from agent.deploy.child import ChildNote
from agent.process.keepers import Keeper
from agent.process.stop import end_group

log = logging.getLogger(__name__)

MIGRATION = "migrate"  # the kind of command that is never cut short by a new agent
DEADLINE = 600.0  # seconds a migration of an earlier agent is waited for


@dataclass(frozen=True, slots=True)
class FoundChild:
    """A child that the keeper has."""

    id: str
    pid: int
    running: bool
    note: ChildNote


def found_children(keeper: Keeper, app: str) -> list[FoundChild]:
    """All children of an app."""
    found = []
    for record in keeper.children.values():
        try:
            note = msgspec.json.decode(record.note, type=ChildNote)
        except msgspec.MsgspecError:
            continue  # a command
        if note.app == app:
            found.append(FoundChild(record.child, record.pid, record.running, note))
    return found


async def end_commands(keeper: Keeper, app: str) -> None:
    """End an app's commands; a migration is waited for, so that it never runs twice at once."""
    for record in list(keeper.children.values()):
        try:
            note = msgspec.json.decode(record.note, type=dict[str, str])
        except msgspec.MsgspecError:
            continue
        if note.get("app") != app or "command" not in note:
            continue
        if record.running and note["command"] == MIGRATION:
            log.info("%s: waiting for the migration an earlier agent began (pid %d)", app, record.pid)
            try:
                async with asyncio.timeout(DEADLINE):
                    await keeper.wait(record.child)
            except TimeoutError:
                log.error("%s: the migration does not end; it is killed", app)
        await end_group(keeper, record.child)
        await keeper.wait(record.child)
        await keeper.forget(record.child)
