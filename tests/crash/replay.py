"""What power cuts would have left of a deploy, and what the next agent makes of it: `make replay`.

A deploy is recorded (see `record`). A power cut at any moment leaves all that was done up to then; or, of
what was not synced by then, nothing; or all but one. A commit of SQLite counts as one change. Each state that
looks different is looked at: the journal opens, and tells nothing false; `current` and `good` name whole
deployments; what has a name in the store is what was unpacked; what is told of databases is in them. On a
sample a whole agent is started: it reaches what is wanted and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.deploy.deployments import Deployment, Deployments
from agent.deploy.journal_schema import connect
from agent.deploy.layout import AppDirectory, DataDirectory
from agent.domain.errors import Failure
from tests.crash.beginnings import First
from tests.crash.commits import grouped
from tests.crash.disk import Change, Tree
from tests.crash.kind import Kind
from tests.crash.nursed import Nursery
from tests.crash.record import Record, record, strace
from tests.crash.stage import DEADLINE, Stage
from tests.kit.box import Box

NONE, ALL = -1, -2
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # looks need no disk
WHOLE = ("store/trees", "apps/*/generations", "apps/*/deployments")  # what has a name there is whole


@dataclass
class State:
    """What one power cut left. `lost` is what was done and is not there."""

    at: int
    lost: str
    tree: Tree
    lived: bool = False  # whether an agent was started on it
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    """A power cut after `at` changes; `lost` of them is one, ALL that were not synced, or NONE."""

    at: int
    lost: int


def cuts(changes: list[Change]) -> list[Cut]:
    """Every one that takes something else."""
    found = []
    for at in range(len(changes) + 1):
        loose = [number for number, change in enumerate(changes[:at]) if change.synced > at]
        found += [Cut(at, lost) for lost in (NONE, *([ALL] if loose else []), *loose)]
    return found


def state(cut: Cut, changes: list[Change], base: Tree) -> State:
    """What a power cut leaves."""
    done = list(enumerate(changes[: cut.at]))
    if cut.lost == ALL:
        kept, lost = [change for _, change in done if change.synced <= cut.at], "everything"
    else:
        kept = [change for number, change in done if number != cut.lost]
        lost = "" if cut.lost == NONE else changes[cut.lost].what
    return State(cut.at, lost, base.after(kept))


async def recorded(stage: Stage, play: Kind, log: Path) -> Record:
    """Deploy once in peace, once heard; a first start on nothing is heard itself. The box is stopped then."""
    box = stage.box
    if first := isinstance(play, First):
        await play.begin(0)
        box.data.mkdir()
    else:
        await play.peace()
        await box.stop()
    base = Tree.of(box.data)
    box.wrapper = strace(log)
    with suppress(AssertionError):
        await Box.start(box)  # an agent as it is, not one of a nursery
    await box.until(box.answers, DEADLINE)  # it is slow while somebody listens
    if not first:
        await play.prepare(1)
        await play.push(await play.begin(1))
    await play.there(int(not first))
    await box.until(stage.rests, DEADLINE)
    await box.stop()
    box.wrapper = []
    return record(log, box.data, base)


def missed(heard: Record, disk: Path) -> list[str]:
    """What is on the disk and not in the record, or the other way round."""
    wanted, found = Tree.of(disk).flat(), heard.full.flat()
    different = {path for path in {*wanted, *found} if wanted.get(path) != found.get(path)}
    return sorted(path for path in different if not path.endswith("-shm")) + heard.unknown


class Judge:
    """Looks at states, each put where the agent's data are. `heard` tells what is right."""

    def __init__(self, heard: Record) -> None:
        self._known: dict[str, dict[str, str]] = {}
        for tree in (heard.base, heard.full):
            for path, entry in _whole(tree.flat()).items():
                self._known[path] = entry
        self._expected = "journal.db" in heard.base.flat()
        self._apps = set(_links(heard.base, "current"))
        self._wanted = set(_links(heard.full, "current"))

    def look(self, data: Path, tree: Tree) -> list[str]:
        """What is wrong with a state that is at `data`, before any agent has touched it."""
        flat = tree.flat()
        found = [f"{path} is not whole" for path, entry in _whole(flat).items() if self._torn(path, entry)]
        try:
            connection, lost = connect(data / "journal.db", expected=self._expected)
        except Failure as error:
            return [*found, f"the journal cannot be opened: {error}"]
        try:
            if lost is not None:
                found.append(f"the journal is {lost.reason}")
            verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
            found += [] if verdict == "ok" else [f"the journal: {verdict}"]
            directory = DataDirectory(data)
            for app in sorted(path.name for path in directory.apps.glob("*")):
                found += self._app(directory.app(app), connection, flat)
        finally:
            connection.close()
        return found

    def _torn(self, path: str, entry: dict[str, str]) -> bool:
        return path in self._known and not path.startswith("apps/") and entry != self._known[path]

    def _app(self, directory: AppDirectory, journal: sqlite3.Connection, flat: dict[str, str]) -> list[str]:
        app, deployments = directory.name, Deployments(directory)
        current, good = deployments.linked("current"), deployments.linked("good")
        found = []
        if current is None and app in self._apps and f"apps/{app}/current" in flat:
            found.append(f"{app}: current leads to nothing whole")
        if good is None and f"apps/{app}/good" in flat:
            found.append(f"{app}: good leads to nothing whole")
        for one in (current, good):
            found += self._deployment(one, flat) if one is not None else []
        found += _undone(app, journal, directory.root)
        last = journal.execute(
            "SELECT result, spec FROM runs WHERE app = ? ORDER BY seq DESC LIMIT 1", (app,)
        ).fetchone()
        if last is not None and last[0] in ("succeeded", "probation") and (current or app in self._wanted):
            serves = current.pair.spec if current is not None else "nothing"
            found += (
                [] if serves == last[1] else [f"{app}: a run {last[0]} with {last[1]}, current is {serves}"]
            )
        return found

    def _deployment(self, one: Deployment, flat: dict[str, str]) -> list[str]:
        """Whether all that a deployment consists of is as it was written."""
        app = one.spec.name
        parts = [f"store/trees/{one.pair.release}"] if one.pair.release else []
        parts += [f"apps/{app}/generations/{one.pair.generation}"] if one.pair.generation else []
        whole = _whole(flat)
        return [f"{app}: {part} is not whole" for part in parts if whole.get(part) != self._known.get(part)]


def _undone(app: str, journal: sqlite3.Connection, root: Path) -> list[str]:
    """Whether a database lacks what the ledger says was done to it; each migration here is one file."""
    done = journal.execute(
        "SELECT count(*) FROM migrations WHERE app = ? AND word = 'done'", (app,)
    ).fetchone()[0]
    if not done:
        return []
    there = 0
    for path in root.glob("dirs/*/*.db"):
        database = sqlite3.connect(path)
        try:
            there += database.execute("SELECT count(*) FROM emptybox_history").fetchone()[0]
        finally:
            database.close()
    return [] if there >= done else [f"{app}: {done} migrations are told as done, the databases have {there}"]


def _links(tree: Tree, name: str) -> dict[str, str]:
    return {path.split("/")[1]: what for path, what in tree.flat().items() if path.endswith(f"/{name}")}


def _whole(flat: dict[str, str]) -> dict[str, dict[str, str]]:
    """What is in each directory that counts as whole once it has its name."""
    found: dict[str, dict[str, str]] = {}
    for path, what in flat.items():
        parts = path.split("/")
        depth = 3 if parts[0] == "store" else 4
        place = parts[: depth - 1]
        if len(parts) >= depth and any(Path(*place).match(pattern) for pattern in WHOLE):
            name = parts[depth - 1]
            if not name.startswith(".") and not name.endswith("-again"):
                found.setdefault("/".join(parts[:depth]), {})["/".join(parts[depth:])] = what
    return found


async def replayed(
    kind: type[Kind], directory: Path, choose: Callable[[list[Cut], list[Change]], Sequence[Cut]], agents: int
) -> AsyncGenerator[State, None]:
    """Record a deploy of a kind, look at what power cuts leave that `choose` takes, start some agents on it.

    What looks like another state is left out. Raises AssertionError when something was not heard.
    """
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(Nursery())
        stage = Stage(directory, nursery)
        await stack.enter_async_context(stage.box)
        play = kind(stage)
        heard = await recorded(stage, play, directory / "strace")
        assert missed(heard, stage.box.data) == []
        judge, changes = Judge(heard), grouped(heard)
        chosen, seen = choose(cuts(changes), changes), set[str]()
        every = max(1, len(chosen) // agents) if agents else 0
        desk = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        for number, cut in enumerate(chosen, start=1):
            found = state(cut, changes, heard.base)
            if (digest := found.tree.digest()) in seen:
                continue
            seen.add(digest)
            await asyncio.to_thread(found.tree.write, desk)
            found.wrong = await asyncio.to_thread(judge.look, desk, found.tree)
            if every and number % every == 0:
                found.tree.write(stage.box.data)
                found.wrong += await _lived(stage, play)
                found.lived = True
            yield found
        shutil.rmtree(stage.box.data)


async def _lived(stage: Stage, play: Kind) -> list[str]:
    """What is wrong once an agent has made of a state what it could."""
    try:
        await stage.box.start()
        await play.there(int(not isinstance(play, First)))
        return await stage.wrong(play.programs)
    except AssertionError as error:
        return [f"not reached: {error}"[:4000]]
    finally:
        await stage.box.stop()
