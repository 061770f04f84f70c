"""The world around the apps of a `Box`: a directory of strings that its puppets hang on.

world = World(box)
await world.deploy("1.0")                     # a puppet (tests/kit/puppet.py), not the sample server
world.pull("sick-2.0"); world.release("sick-2.0")
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.kit import puppet
from tests.kit.box import Box, archive
from tests.kit.git_server import Content
from tests.kit.unruly import Unruly

PROGRAM = Path(puppet.__file__).read_bytes()


class World:
    """Strings, and apps that hang on them. `server` is where artifacts are fetched from, None: file://."""

    def __init__(self, box: Box, server: Unruly | None = None) -> None:
        self.box = box
        self.server = server
        self.path = box.directory / "world"
        self.path.mkdir()

    # -- strings -----------------------------------------------------------------------------------

    def pull(self, name: str) -> Path:
        """Put a file there."""
        path = self.path / name
        path.touch()
        return path

    def release(self, name: str) -> None:
        """Take a file away."""
        (self.path / name).unlink()

    def lines(self, name: str) -> list[str]:
        """The lines of a file, none when it is not there."""
        path = self.path / name
        return path.read_text().splitlines() if path.exists() else []

    async def said(self, name: str, count: int = 1) -> list[str]:
        """Wait until a file has so many lines."""

        async def there() -> bool:
            return len(self.lines(name)) >= count

        await self.box.until(there)
        return self.lines(name)

    # -- apps --------------------------------------------------------------------------------------

    def artifact(self, version: str, name: str = "web") -> dict[str, Any]:
        """A puppet of this version, put where it can be fetched."""
        data = archive(version, "puppet", {"bin/web": PROGRAM})
        file = f"{name}-{version}.tar.gz"
        if self.server is not None:
            url = self.server.put(file, data)
        else:
            path = self.box.artifacts / file
            path.write_bytes(data)
            url = path.as_uri()
        return {"url": url, "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}", "strip": 1}

    def app(self, version: str, **parts: Any) -> dict[str, Any]:
        """One app of the desired state; `parts` replace or add keys, None removes one."""
        app: dict[str, Any] = {
            "version": version,
            "artifact": self.artifact(version),
            "run": {"command": [sys.executable, "-S", "bin/web"]},
            "env": {"WORLD": str(self.path)},
            "listen": self.box.port,
            "socket": "fd",
            "health": {
                "http": "/healthz", "interval": "50ms", "timeout": "1s", "deadline": "5s",
                "probation": "300ms",
            },
        }  # fmt: skip
        for key, value in parts.items():
            if key == "health" and isinstance(value, dict):
                value = {**app["health"], **value}
            app[key] = value
        return {key: value for key, value in app.items() if value is not None}

    async def deploy(
        self, version: str, *, push: bool = False, tree: dict[str, Content] | None = None, **parts: Any
    ) -> str:
        """Commit a state with one puppet `web`; with `push`, tell the agent by a signed webhook."""
        commit = await self.commit({"web": self.app(version, **parts)}, tree)
        if push:
            status, answer = await self.box.webhook(commit)
            assert status == 202, answer
        return commit

    async def commit(self, apps: dict[str, Any], tree: dict[str, Content] | None = None) -> str:
        """Commit a state of these apps, with other files beside it."""
        return await self.box.commit({"schema": 1, "apps": apps}, tree)

    def waiting(self, commit: str) -> asyncio.Task[tuple[int, dict[str, Any]]]:
        """Tell the agent of a commit and wait for the sync's end, beside what the test does."""
        return asyncio.ensure_future(self.box.webhook(commit, wait=True))

    async def running(self, version: str = "1.0", **parts: Any) -> None:
        """Deploy, start the agent, and wait until the version has proved itself."""
        await self.deploy(version, **parts)
        await self.box.start()
        await self.box.proven(version)

    # -- processes ---------------------------------------------------------------------------------

    def shell(self, text: str) -> list[str]:
        """A command that runs a line of sh with W naming this directory."""
        return ["/bin/sh", "-c", f"W={self.path}; {text}"]

    async def crash(self) -> None:
        """Ask what serves to end with exit code 7, once: an HTTP client of its own would ask again."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.box.port)
        writer.write(b"GET /exit HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            said = await reader.read()
            assert said == b"", said
        except ConnectionError:
            pass  # as good an end
        finally:
            writer.close()

    def puppets(self) -> list[tuple[str, int]]:
        """Version and pid of each puppet that is alive now."""
        lives = {int(pid): version for version, pid in map(str.split, self.lines("lives"))}  # pids return
        return [(version, pid) for pid, version in lives.items() if self._is_puppet(pid)]

    def _is_puppet(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return f"WORLD={self.path}".encode() in environment

    async def only(self, *versions: str) -> None:
        """Wait until puppets of exactly these versions are alive."""

        async def there() -> bool:
            return sorted(version for version, _ in self.puppets()) == sorted(versions)

        await self.box.until(there)

    async def kill_agent(self) -> None:
        """kill -9 of the agent; returns at once, the keeper starts the next one."""
        os.kill(await self.box.agent_pid(), signal.SIGKILL)

    async def kill_everything(self) -> None:
        """kill -9 of keeper and agent; the children die with the keeper."""
        assert self.box.process is not None
        agent = await self.box.agent_pid()
        os.kill(agent, signal.SIGSTOP)  # so that it cannot act between the two
        os.kill(self.box.process.pid, signal.SIGKILL)
        os.kill(agent, signal.SIGKILL)
        await self.box.process.wait()
        self.box.process = None
        await self.only()

    async def tidy(self) -> None:
        """Wait until nothing is left on disk that nobody needs."""

        async def there() -> bool:
            return not self._leftovers()

        try:
            await self.box.until(there, 5.0)
        except AssertionError:
            raise AssertionError(f"left on disk: {self._leftovers()}") from None

    def _leftovers(self) -> list[str]:
        """What a run must not leave: temporary files, and instances without a living child."""
        found = []
        data = self.box.data
        for directory, names, files in os.walk(data):  # bears directories that vanish while it looks
            inner = os.path.relpath(directory, data)
            left = names + files if inner == "store/tmp" else [n for n in names + files if n[0] == "."]
            found += [os.path.join(inner, n) for n in left if inner == "store/tmp" or n.endswith(".tmp")]
        lived_in = {os.path.realpath(f"/proc/{pid}/cwd") for _, pid in self.puppets()}
        for path in data.glob("apps/*/instances/*"):
            if str(path.resolve()) not in lived_in:
                found.append(str(path.relative_to(data)))
        return sorted(found)
