"""What power cuts would have left of a deploy, and what the next agent makes of it: `make replay`.

A deploy is recorded (see `record`). A power cut at any moment leaves all that was done up to then; or, of
what was not synced by then, nothing; or all but one. A commit of SQLite counts as one change. Each state that
looks different is looked at (see `judge`). On a sample a whole agent is started: it reaches what is wanted
and leaves nothing behind. Of some kinds, what an agent does on a few of those states is recorded too, and
the power fails again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.crash.commits import grouped
from tests.crash.disk import Change, Tree
from tests.crash.judge import Judge
from tests.crash.kind import Kind
from tests.crash.nursed import Nursery
from tests.crash.record import Record, record, strace
from tests.crash.stage import DEADLINE, Stage, never
from tests.kit.box import Box

NONE, ALL = -1, -2
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # looks need no disk


@dataclass
class State:
    """What one power cut left. `lost` is what was done and is not there."""

    at: int
    lost: str
    tree: Tree
    scene: str = ""
    lived: bool = False  # whether an agent was started on it
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    """A power cut after `at` changes; `lost` of them is one, ALL that were not synced, or NONE."""

    at: int
    lost: int


@dataclass(frozen=True)
class Scene:
    """Something that was recorded, to `deploy` being there, and the power that may fail in it."""

    name: str
    deploy: int
    heard: Record
    changes: list[Change]
    judge: Judge
    share: float = 1.0  # of the agents that are started

    def state(self, cut: Cut) -> State:
        """What a power cut leaves."""
        done = list(enumerate(self.changes[: cut.at]))
        if cut.lost == ALL:
            kept, lost = [change for _, change in done if change.synced <= cut.at], "everything"
        else:
            kept = [change for number, change in done if number != cut.lost]
            lost = "" if cut.lost == NONE else self.changes[cut.lost].what
        return State(cut.at, lost, self.heard.base.after(kept), self.name)

    def currents(self, at: int) -> list[str]:
        """The spec digests that `current` was made to lead to until then, in this order."""
        texts, links = [], self.heard.base.links
        for change in self.changes[:at]:
            texts += [links[node] for _, name, node in change.names if name == "current" and node in links]
        return [text.rpartition("/")[2] for text in texts]

    def moments(self, count: int) -> list[Cut]:
        """As many power cuts while it was under way; by turns nothing and all that can be is lost."""
        places = [at for at, change in enumerate(self.changes, start=1) if change.line in self.heard.span]
        chosen = [places[len(places) * (2 * number + 1) // (2 * count)] for number in range(count)]
        return [Cut(at, NONE if number % 2 else ALL) for number, at in enumerate(chosen)]


def cuts(changes: list[Change]) -> list[Cut]:
    """Every one that takes something else."""
    found = []
    for at in range(len(changes) + 1):
        loose = [number for number, change in enumerate(changes[:at]) if change.synced > at]
        found += [Cut(at, lost) for lost in (NONE, *([ALL] if loose else []), *loose)]
    return found


async def recorded(stage: Stage, play: Kind, log: Path, act: Callable[[], Awaitable[None]]) -> Record:
    """Start an agent that is heard, `act`, and stop it once nothing of that is left to be done.

    Raises AssertionError when something was not heard.
    """
    box, base = stage.box, Tree.of(stage.box.data)
    box.wrapper = strace(log)
    try:
        with suppress(AssertionError):
            await Box.start(box)  # an agent as it is, not one of a nursery
        await box.until(box.answers, DEADLINE)  # it is slow while somebody listens
        begun = _lines(log)
        await act()
        await box.until(stage.rests, DEADLINE)
        ended = _lines(log)

        left = await never(partial(stage.lingering, play.programs), DEADLINE)
        assert left == [], left
        await box.stop()
        assert await never(partial(_writing, log), DEADLINE) == []
    finally:
        box.wrapper = []
    heard = record(log, box.data, base)
    heard.span = range(begun, ended + 1)
    log.unlink()
    assert (missed := _missed(heard, box.data)) == [], missed
    return heard


def _writing(log: Path) -> list[str]:
    """Who still writes the log: its writer ends later than what it hears."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(log) in command.read_bytes().split(b"\0"):
                found.append(command.parent.name)
    return found


def _lines(log: Path) -> int:
    with open(log, "rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _missed(heard: Record, disk: Path) -> list[str]:
    """What is on the disk and not in the record, or the other way round."""
    wanted, found = Tree.of(disk).flat(), heard.full.flat()
    different = {path for path in {*wanted, *found} if wanted.get(path) != found.get(path)}
    return sorted(path for path in different if not path.endswith("-shm")) + heard.unknown


async def scenes(stage: Stage, play: Kind, log: Path, again: int | None) -> AsyncIterator[Scene]:
    """The deploys of a kind that are recorded, and what agents did on what power cuts left of them.

    `again` is how many of those at most, if not as many as the kind says.
    """
    await play.past()
    again = play.again if again is None else min(again, play.again)
    for number in play.heard:
        heard = await recorded(stage, play, log, partial(play.deploy, number))
        scene = Scene(str(number), number, heard, grouped(heard), Judge(heard), float(play.alone))
        if play.again:
            await play.meanwhile(number)
        yield scene
        for cut in scene.moments(again):
            scene.state(cut).tree.write(stage.box.data)
            await play.outset()
            second = await recorded(stage, play, log, partial(play.there, number))
            lost = "all" if cut.lost == ALL else "nothing"
            name = f"{number}, after {cut.at} with {lost} lost"
            yield Scene(name, number, second, grouped(second), Judge(second, heard), share=1 / again)
        heard.full.write(stage.box.data)


async def replayed(
    kind: type[Kind],
    directory: Path,
    choose: Callable[[list[Cut], list[Change]], Sequence[Cut]],
    agents: int,
    again: int | None = None,
) -> AsyncGenerator[State, None]:
    """Record deploys of a kind, look at what power cuts leave that `choose` takes, start agents on some.

    What looks like another state is left out. For `again` see `scenes`. Raises AssertionError when something
    was not heard.
    """
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(Nursery())
        stage = Stage(directory, nursery)
        await stack.enter_async_context(stage.box)
        play = kind(stage)
        play.whom = "tree"  # nobody outlives a power cut
        desk = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        seen = set[str]()
        async for scene in scenes(stage, play, directory / "strace", again):
            chosen = choose(cuts(scene.changes), scene.changes) if scene.share else []
            lives, lived = round(agents * scene.share), 0
            for number, cut in enumerate(chosen, start=1):
                found = scene.state(cut)
                flat = found.tree.flat()
                if (digest := _digest(flat)) in seen:
                    continue
                seen.add(digest)
                await asyncio.to_thread(found.tree.write, desk)
                found.wrong = await asyncio.to_thread(scene.judge.look, desk, flat, scene.currents(cut.at))
                if lived < lives * number / len(chosen):
                    found.tree.write(stage.box.data)
                    found.wrong += await _lived(stage, play, scene.deploy)
                    found.lived, lived = True, lived + 1
                yield found
        shutil.rmtree(stage.box.data)


def _digest(flat: dict[str, str]) -> str:
    """The same for trees that look the same."""
    text = "\0".join(f"{path}\0{what}" for path, what in sorted(flat.items()))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


async def _lived(stage: Stage, play: Kind, deploy: int) -> list[str]:
    """What is wrong once an agent has made of a state what it could."""
    try:
        await play.outset()
        await stage.box.start()
        await play.there(deploy)
        return await stage.wrong(play.programs) + await play.wrong()
    except AssertionError as error:
        return [f"not reached: {error}"[:4000]]
    finally:
        await stage.box.stop()
