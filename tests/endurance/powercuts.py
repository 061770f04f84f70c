"""Power cuts in a stream of deploys: `python -m tests.endurance.powercuts [--count N] [--seed N]`.

An emulated machine deploys one version after the other on an ext4 disk with a write cache. With a random
write its power fails: qemu is killed with -9, and of what was not flushed each sector is on the disk or is
not (`volatile.py`). The next boot must find a file system that mounts, the last version that was told as
proven or the one after it, whole, a true history, and nothing left behind; and go on from there
(`cut_guest.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.endurance import cut_guest
from tests.endurance.small_machine import SmallMachine, prepare
from tests.endurance.volatile import VolatileDisk
from tests.kit.box import archive
from tests.kit.image import run
from tests.kit.world import PROGRAM

ROOT = Path(__file__).parents[2]
VERSIONS = 1500
SIZE = "192M"
WRITES = 120  # until the power fails, at most, mostly while deploys go on; about three of them
ANYWHERE = 0.4  # how often that is counted from the boot on
LONG = 60.0  # seconds after which it fails also without a write
PATIENCE = 400.0  # seconds for a boot with all its looks


class Cuts:
    """One machine, whose power is cut again and again."""

    def __init__(self, directory: Path, machine: SmallMachine, disk: VolatileDisk, seed: int) -> None:
        self._directory, self._machine, self._disk = directory, machine, disk
        self._dice = random.Random(seed)
        self.last = -1  # the newest version told as proven
        self.counts: Counter[str] = Counter()

    async def once(self, number: int, *, cut: bool = True) -> None:
        """Boot, let it look and deploy, and cut the power."""
        (self._directory / "last").write_text(f"{self.last}\n")
        checked, said = asyncio.Event(), list[str]()
        async with self._machine.booted(self._directory / "disk.sock", self._directory) as machine:
            listening = asyncio.ensure_future(self._listen(machine, checked, said))
            if cut and self._dice.random() < ANYWHERE:
                await self._failure(listening, PATIENCE)
            else:
                looked = asyncio.ensure_future(checked.wait())
                await asyncio.wait({listening, looked}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
                looked.cancel()
                if not checked.is_set():
                    said.append("@wrong nothing was looked at in time")
                elif cut:
                    await self._failure(listening, LONG)
            if listening.done():  # without a word about the disk it is the emulator's doing
                spoke = any(line.startswith("@") for line in said)
                said.append("@wrong the machine ended by itself" if spoke else "@unbooted")
            machine.kill()
            await machine.wait()
            await listening
        self._disk.cut(self._dice)
        self._tell(number, cut, checked.is_set(), said)

    async def _failure(self, listening: asyncio.Future[None], deadline: float) -> None:
        """Wait until the power has failed with a write, or the machine has ended by itself."""
        self._disk.fail_after(self._dice.randint(1, WRITES))
        failed: asyncio.Future[Any] = asyncio.ensure_future(self._disk.failed.wait())
        await asyncio.wait([listening, failed], timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()

    def _tell(self, number: int, cut: bool, checked: bool, said: list[str]) -> None:
        self.counts["cuts"] += cut
        self.counts["looked at"] += checked
        self.counts["not even booted"] += "@unbooted" in said
        how = "looked at" if checked else "cut before the look"
        print(
            f"{number}: {how}, then at {self.last}.0; {self._disk.writes} writes, {self._disk.lost} lost",
            flush=True,
        )
        wrong = [line for line in said if line.startswith("@wrong")]
        if wrong:
            self.counts["wrong"] += 1
            print("\n".join(f"    {line}" for line in said[-300:]), flush=True)

    async def _listen(
        self, machine: asyncio.subprocess.Process, checked: asyncio.Event, said: list[str]
    ) -> None:
        assert machine.stdout is not None
        while line := (await machine.stdout.readline()).decode(errors="replace").strip():
            said.append(line)
            word, _, rest = line.partition(" ")
            if word in ("@checked", "@proven"):
                self.last = int(rest)
                self.counts["deploys"] += 1
            if word == "@checked":
                checked.set()


def serve(served: Path) -> None:
    """A repository with one commit a version, and their artifacts."""
    (served / "artifacts").mkdir(parents=True)
    run("git", "init", "-q", "--bare", "--initial-branch=main", served / "state.git")
    lines = []
    for number in range(VERSIONS):
        text = json.dumps(_state(served, number))
        lines.append(
            f"commit refs/heads/main\nmark :{number + 1}\ncommitter A <a@b> {1_700_000_000 + number} +0000\n"
            f"data 2\nx\nM 100644 inline state.yaml\ndata {len(text)}\n{text}\n"
        )
    marks = served / "marks"
    words = ["git", "-C", str(served / "state.git"), "fast-import", "--quiet", f"--export-marks={marks}"]
    subprocess.run(words, input="".join(lines).encode(), check=True)
    found = dict(line.split() for line in marks.read_text().splitlines())
    (served / "commits.json").write_text(json.dumps([found[f":{n + 1}"] for n in range(VERSIONS)]))


def _state(served: Path, number: int) -> dict[str, Any]:
    version = f"{number}.0"
    data = archive(version, "puppet", {"bin/web": PROGRAM})
    path = served / f"artifacts/web-{version}.tar.gz"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    web = {
        "version": version,
        "artifact": {"url": path.as_uri(), "checksum": f"sha256:{digest}", "strip": 1},
        "files": [{"target": "etc/web.conf", "content": f"version = {version}"}],
        "migrate": [{"name": "schema", "command": ["/bin/sh", "-c", f": {version}"]}],
        "run": {"command": [sys.executable, "-S", "bin/web"]},
        "env": {"WORLD": f"{cut_guest.STAGE}/world"},
        "listen": cut_guest.PORT,
        "socket": "fd",
        "keep": 2,
        "health": {
            "http": "/healthz", "interval": "100ms", "timeout": "20s", "deadline": "120s",
            "probation": "300ms",
        },
    }  # fmt: skip
    return {"schema": 1, "apps": {"web": web}}


def _compile(directory: Path) -> None:
    """Everything of the agent, and what it imports: the machine would take minutes for that."""
    code = (
        "import agent, pkgutil, importlib, contextlib\n"
        "for each in pkgutil.walk_packages(agent.__path__, 'agent.'):\n"
        "    with contextlib.suppress(Exception):\n"
        "        'main' in each.name or importlib.import_module(each.name)\n"
        "import agent.keeper.main, agent.cli.main, agent.__main__\n"
    )
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory), "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, "-P", "-c", code], env=environment, check=True, cwd=directory.parent)
    subprocess.run([sys.executable, "-S", "-c", "import http.client, sqlite3"], env=environment, check=True)


async def _all(count: int, seed: int) -> int:
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="emptybox-power-"))
    directory.chmod(0o755)
    try:
        serve(directory / "served")
        program = (
            f"/bin/sh -c 'cd {ROOT} && exec {sys.executable} -S -P {cut_guest.__file__}"
            f" {directory}/served $(cat {directory}/last)'"
        )
        compiled = directory / "compiled"
        await asyncio.to_thread(_compile, compiled)
        machine = prepare(directory / "machine", program, f"PYTHONPYCACHEPREFIX={compiled}")
        image = directory / "disk.img"
        run("mkfs.ext4", "-q", "-F", image, SIZE)
        async with VolatileDisk(image, directory / "disk.sock") as disk:
            cuts = Cuts(directory, machine, disk, seed)
            for number in range(1, count + 1):
                await cuts.once(number)
            await cuts.once(count + 1, cut=False)
        print(f"{time.monotonic() - began:.0f} s, {disk.writes} writes, {disk.flushes} flushes", end=", ")
        print(f"{disk.lost} writes or sectors lost")
        print(", ".join(f"{number} {what}" for what, number in cuts.counts.items()))
        return 1 if cuts.counts["wrong"] else 0
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    """Cut and count; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.powercuts")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=20261121)
    options = parser.parse_args()
    return asyncio.run(_all(options.count, options.seed))


if __name__ == "__main__":
    sys.exit(main())
