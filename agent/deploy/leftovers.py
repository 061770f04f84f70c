"""What an earlier agent left with the keeper: children that go on, and commands that must not.

A child is described by the note it was started with, and by a second one under its own name, which the
agent changes later: the specification it serves now (a reload gave it another one), or that it is on its
way out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from agent.deploy.child import ChildNote
from agent.process.command import CommandResult
from agent.process.keepers import Keeper
from agent.process.stop import end_group

log = logging.getLogger(__name__)
T = TypeVar("T")

LEAVING = "leaving"  # a child that was asked to end
MIGRATIONS = ("migrate", "down")  # kinds of commands that are never cut short by a new agent
SHORTEST = 10.0  # seconds that one is waited for at least


@dataclass(frozen=True, slots=True)
class FoundChild:
    """A child that the keeper had when this agent came. `spec` is what it serves now."""

    id: str
    pid: int
    running: bool
    leaving: bool
    spec: str
    note: ChildNote


def note_key(child: str) -> str:
    """Where the keeper has the second note on a child."""
    return f"child {child}"


def found_children(keeper: Keeper, app: str) -> list[FoundChild]:
    """All children of an app."""
    found = []
    for record in keeper.children.values():
        note = _decoded(record.note, ChildNote)  # None: a command
        if note is not None and note.app == app:
            word = keeper.notes.get(note_key(record.child), note.spec)
            leaving = word == LEAVING
            spec = note.spec if leaving else word
            found.append(FoundChild(record.child, record.pid, record.running, leaving, spec, note))
    return found


def apps_with_children(keeper: Keeper) -> set[str]:
    """Apps of which the keeper has a child, or a command."""
    notes = (_decoded(record.note, _Whose) for record in keeper.children.values())
    return {note.app for note in notes if note is not None and note.app}


class _Whose(msgspec.Struct):
    """What the notes of children and of commands have in common."""

    app: str = ""


class Leftovers:
    """The commands that were there at the start; what is started later is none of its business."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._commands: dict[str, list[tuple[str, dict[str, str]]]] = {}  # app: (child, note)
        for record in keeper.children.values():
            command = _decoded(record.note, dict[str, str])
            if command is not None and "command" in command:
                mine = self._commands.setdefault(command.get("app", ""), [])
                mine.append((record.child, command))

    def migrates(self, app: str) -> bool:
        """Whether a migration that an earlier agent began is not settled yet."""
        return any(note["command"] in MIGRATIONS for _, note in self._commands.get(app, []))

    async def end_commands(self, app: str) -> list[tuple[int, CommandResult]]:
        """End an app's commands; a migration is waited for, so that it never runs twice at once.

        Returns how migrations ended, each with its number in the ledger (0: of none). Raises what the process
        package raises.
        """
        ended = []
        for child, note in self._commands.pop(app, []):
            if note["command"] in MIGRATIONS:
                ended.append((int(note.get("entry", "0")), await self._outlast(app, child, note)))
            await self.end(child)
        return ended

    async def _outlast(self, app: str, child: str, note: dict[str, str]) -> CommandResult:
        timeout: float | None = None
        record = self._keeper.children[child]
        if record.running:
            log.info("%s: waiting for the migration an earlier agent began", app)
            left = record.started + float(note.get("timeout", "600")) - time.time()
            try:
                async with asyncio.timeout(max(SHORTEST, left)):
                    await self._keeper.wait(child)
            except TimeoutError:
                log.error("%s: the migration does not end; it is killed", app)
                await end_group(self._keeper, child)
                timeout = float(note.get("timeout", "600"))
        record = await self._keeper.wait(child)
        lines = await self._keeper.tail(child)
        return CommandResult(record.code, record.signal, tuple(lines), timeout=timeout)

    async def end(self, child: str) -> None:
        """End and forget whoever it is, at once."""
        await end_group(self._keeper, child)
        await self._keeper.wait(child)
        await self._keeper.forget(child)
        if note_key(child) in self._keeper.notes:
            await self._keeper.note(note_key(child), None)


def _decoded(note: str, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(note, type=kind)
    except msgspec.MsgspecError:
        return None
