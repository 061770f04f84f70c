"""A box whose agent, or whole tree, dies at a durable operation, and what must be true of it afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiohttp

from tests.crash.nursed import Nursery
from tests.kit.box import Box
from tests.kit.world import World

DEADLINE = 60.0
RESTING = ("running", "degraded", "placed", "ready")  # degraded: another version is wanted, and quarantined
RESERVED = (".release", ".config", ".tmp")  # links of an instance, or of what places show


class Nursing(Box):
    """A box whose keepers are born in a nursery, and its agents with them."""

    nursery: Nursery
    fate: Path

    async def start(self, verb: str = "run", environment: dict[str, str] | None = None) -> None:
        """Have a keeper born, and wait until its agent answers."""
        command = self.command(verb)
        words = command[command.index(verb) :]
        log = self.directory / "output.log"
        self.process = await self.nursery.birth(self.fate, words, log, environment or {})
        await self.until(self.answers, DEADLINE)


class Stage:
    """One box on which somebody is killed again and again. `places` is where apps may place files.

    Only who was born in a nursery dies before an operation.
    """

    def __init__(self, directory: Path, nursery: Nursery | None = None) -> None:
        self.fate = directory / "fate"
        self.fate.mkdir(parents=True)
        self.places = directory / "srv"
        self.places.mkdir()
        settings = {"--place-root": str(self.places)}
        if nursery is None:
            self.box = Box(directory / "box", settings=settings)
        else:
            self.box = Nursing(directory / "box", settings=settings)
            self.box.nursery, self.box.fate = nursery, self.fate
        self.world = World(self.box)
        self.episode = 0
        self._told: set[str] = set()  # what was found wrong is told once

    # -- death -------------------------------------------------------------------------------------

    def arm(self, at: int | str, whom: str) -> None:
        """`whom` (agent or tree) dies before the operation `at` from now on, or the first so named."""
        self.episode += 1
        (self.fate / "fired").unlink(missing_ok=True)
        beside = self.fate / "arming"
        beside.write_text(f"{self.episode} {whom} {at}\n")
        beside.rename(self.fate / "armed")

    def disarm(self) -> bool:
        """Whether somebody died since it was armed; nobody will any more."""
        (self.fate / "armed").unlink(missing_ok=True)
        return self.fired

    @property
    def fired(self) -> bool:
        """Whether somebody died since it was armed."""
        return (self.fate / "fired").exists()

    def hold(self, held: bool) -> None:
        """Let no agent begin for now; one that lives is not held up."""
        if held:
            (self.fate / "hold").touch()
        else:
            (self.fate / "hold").unlink(missing_ok=True)

    @property
    def trace(self) -> list[str]:
        """The operations since it was armed, the fatal one last."""
        path = self.fate / f"trace-{self.episode}"
        return path.read_text().splitlines() if path.exists() else []

    async def revive(self) -> None:
        """Start the tree again each time all of it was killed; until cancelled."""
        while True:
            while self.box.process is None or self.box.process.returncode is None:
                await asyncio.sleep(0.01)
            if self.box.process.returncode != -signal.SIGKILL:
                return
            with suppress(
                AssertionError
            ):  # it may die again, before it answers; if it does not, others say so
                await self.box.start()

    # -- what must be true ---------------------------------------------------------------------------

    async def rests(self) -> bool:
        """Whether an agent answers, and nothing is under way."""
        try:
            status = await self.box.status()
        except aiohttp.ClientError:
            return False
        apps = status["apps"].values()
        busy = [a for a in apps if a.get("run") or a["state"] not in RESTING]
        return not busy and not status["source"]["running"]

    async def swept(self, programs: int) -> None:
        """Wait until the deploy before has left, or somebody died over that, or it stays for good."""
        await never(lambda: [] if self.fired else self._processes(programs))
        await never(lambda: [] if self.fired else self._left())

    def lingering(self, programs: int) -> list[str]:
        """What of a deploy before is still there, on the disk or as a process."""
        return self._processes(programs) + self._left()

    async def wrong(self, programs: int) -> list[str]:
        """Everything that is not as it should be, `programs` being how many apps have a process."""
        await self.box.until(self.rests, DEADLINE)
        found = []
        for what, look in (
            ("left on disk", self._left),
            ("processes", lambda: self._processes(programs)),
            ("journal", self._journal),
            ("locks", self._locks),
        ):
            found += [f"{what}: {one}" for one in await never(look)]
        found += [
            one for one in Path("/proc/self/mounts").read_text().splitlines() if str(self.fate.parent) in one
        ]
        found += await self._damaged()
        if (unsynced := self.fate / "unsynced").exists():
            found += unsynced.read_text().splitlines()
        news = [one for one in found if one not in self._told]
        self._told.update(news)
        return news

    def _left(self) -> list[str]:
        """Temporary files, instances nobody lives in, half an app."""
        found, data = [], self.box.data
        for directory, names, files in os.walk(data):
            inner = os.path.relpath(directory, data)
            if inner.startswith("store/trees/"):
                names.clear()
                continue
            for name in names + files:
                half = (
                    inner in ("store/tmp", "store/trash")
                    or name[0] == "."
                    or name.endswith(("~", ".tmp", ".lock"))
                )
                if half and name not in RESERVED:
                    found.append(f"{inner}/{name}")
        cwds = {_link(f"/proc/{pid}/cwd") for pid in self._tree()}
        for path in data.glob("apps/*/instances/*"):
            if str(path.resolve()) not in cwds:
                found.append(str(path.relative_to(data)))
        for view in data.glob("apps/*/deployments/*/view-*"):
            if _link(str(view.parent / "view")) != str(view.resolve()):
                found.append(str(view.relative_to(data)))
        for app in data.glob("apps/*"):
            if not (app / "current").is_symlink() and (app / "good").is_symlink():
                found.append(f"{app.name} has a good pair and no current one")
        return sorted(found)

    def _tree(self) -> list[int]:
        """Every process of the box: below the keeper, or with the mark of the data directory."""
        assert self.box.process is not None
        box = (self.box.data / "box").read_text().split()[0]
        parents, marked = {}, set()
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):
                    stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    if stat[0] == "Z":
                        continue
                    parents[int(entry)] = int(stat[1])
                    if box.encode() in Path(f"/proc/{entry}/environ").read_bytes():
                        marked.add(int(entry))
        below = {self.box.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in below} - below:
            below |= more
        return sorted(below | marked)

    def _processes(self, programs: int) -> list[str]:
        """Keeper, scribe, agent and the programs, and no one else."""
        tree = {pid: _command(pid) for pid in self._tree()}
        apps = [text for text in tree.values() if "bin/web" in text]
        agents = [text for text in tree.values() if _is_agent(text)]
        ours = [text for text in tree.values() if "mortal_" in text or " -m agent " in text]
        others = len(tree) - len(apps) - len(ours)
        if len(apps) == programs and not others and len(agents) == 1:
            return []
        return [f"{pid}: {text}" for pid, text in tree.items()]

    def _journal(self) -> list[str]:
        """Runs, steps and syncs that are told as under way."""
        connection = sqlite3.connect(f"file:{self.box.data}/journal.db?mode=ro", uri=True)
        try:
            under_way = {
                "runs": "result IN ('running', 'probation')",
                "steps": "result = 'running'",
                "syncs": "result IN ('running', 'probation')",
                "migrations": "word = 'running'",
                "job_runs": "result IN ('waiting', 'running')",
            }
            return [
                f"{table} {row}"
                for table, which in under_way.items()
                for row in connection.execute(f"SELECT * FROM {table} WHERE {which}").fetchall()
            ]
        finally:
            connection.close()

    def _locks(self) -> list[str]:
        """Locks on files of the box that the agent does not hold, and such files in the hands of others."""
        agents = [pid for pid in self._tree() if _is_agent(_command(pid))]
        inodes = {}
        for directory, names, files in os.walk(self.box.data):
            if directory.endswith("/trees"):
                names.clear()
            for name in files:
                with suppress(OSError):
                    inodes[os.stat(os.path.join(directory, name)).st_ino] = f"{directory}/{name}"
        found = []
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.replace(" ->", "").split()
            inode = int(words[5].rpartition(":")[2])
            if inode in inodes and int(words[4]) not in agents:
                found.append(f"{words[1]} of {words[4]} on {inodes[inode]}")
        for pid in set(self._tree()) - set(agents):
            for fd in _listed(f"/proc/{pid}/fd"):
                path = _link(f"/proc/{pid}/fd/{fd}")
                if path.startswith((f"{self.box.data}/lock", f"{self.box.data}/journal")):
                    found.append(f"{pid} ({_command(pid)}) has {path} open")
        return found

    async def _damaged(self) -> list[str]:
        """What `emptybox store verify` finds wrong with any release."""
        connector = aiohttp.UnixConnector(str(self.box.data / "agent.sock"))
        found = []
        async with aiohttp.ClientSession("http://agent", connector=connector) as session:
            async with session.get("/store", headers={"Accept": "application/json"}) as answer:
                releases = (await answer.json())["releases"]
            for release in releases:
                body = {"release": release["release"]}
                async with session.post("/store/verify", json=body) as answer:
                    told = await answer.json()
                    if answer.status != 200 or told["verdict"] != "ok":
                        found.append(f"store: {told}")
        return found


async def never(look: Callable[[], list[str]], patience: float = 30.0) -> list[str]:
    """What `look` finds, once it has found it for a while (seconds); nothing as soon as it finds nothing."""
    end = asyncio.get_running_loop().time() + patience
    while (found := look()) and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.05)  # it looks at every process there is
    return found


def _link(path: str) -> str:
    with suppress(OSError):
        return os.path.realpath(path, strict=True)
    return ""


def _is_agent(command: str) -> bool:
    return command == "mortal_agent" or " _agent " in command


def _listed(path: str) -> list[str]:
    with suppress(OSError):
        return os.listdir(path)
    return []


def _command(pid: int) -> str:
    with suppress(OSError):
        if (name := Path(f"/proc/{pid}/comm").read_text().strip()).startswith("mortal_"):
            return name
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return "gone"
