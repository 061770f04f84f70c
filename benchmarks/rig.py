"""What every benchmark stands on: the real agent under its keeper, a Git server, an artifact server."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agent.cli.demo.agent_process import AgentProcess, command
from agent.cli.demo.artifact_server import artifact_server
from agent.cli.demo.clone import Clone
from agent.cli.demo.git_server import GitServer, git
from agent.cli.demo.ports import free_port
from benchmarks import proc

HOST = "127.0.0.1"
DEADLINE = 30.0
ANSWER = aiohttp.ClientTimeout(total=10.0)


@dataclass(slots=True, kw_only=True)
class Rig:
    """The parts. URLs have no slash at the end."""

    directory: Path
    repository: str
    artifacts: str
    admin: str
    app_port: int
    spare_port: int
    secret: str
    session: aiohttp.ClientSession
    clone: Clone
    agent: AgentProcess | None = None
    flags: dict[str, str] = field(default_factory=dict)

    def state(self, version: str, checksum: str, **health: str) -> str:
        """state.yaml for one app: the sample server at a version, with settings of `health`."""
        web = {
            "version": version,
            "artifact": {
                "url": f"{self.artifacts}/web-{{{{ version }}}}.tar.gz",
                "checksum": f"sha256:{checksum}",
                "strip": 1,
            },
            "run": {"command": [sys.executable, "-S", "bin/web"]},
            "listen": {"http": {"port": self.app_port, "address": HOST}},
            "socket": "fd",
            "health": {"http": "/healthz", **health},
        }
        return json.dumps({"schema": 1, "apps": {"web": web}}, indent=1) + "\n"

    async def publish(self, state: str, message: str) -> str:
        """Commit a state and put it on the server past HTTP; returns the commit. Nobody is told."""
        commit = await self.clone.commit({"state.yaml": state}, message)
        bare = self.directory / "git" / "state.git"
        await git("push", "-q", str(bare), "HEAD:main", directory=self.clone.directory)
        return commit

    async def start_agent(self) -> None:
        """Start it and wait until it has looked at the repository."""
        self.agent = await AgentProcess.start(command(self.flags), self.directory / "agent.log")

        async def looked() -> bool:
            try:
                return bool((await self.status())["source"]["last_sync"])
            except aiohttp.ClientError:
                return False

        await self.until(looked)

    async def status(self) -> dict[str, Any]:
        """GET /status."""
        async with self.session.get(f"{self.admin}/status", timeout=ANSWER) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def announce(self, commit: str) -> None:
        """Send the signed webhook of a push (Gitea's), which must be taken."""
        repository = {"full_name": "bench/state", "clone_url": self.repository}
        push = {"ref": "refs/heads/main", "before": "0" * 40, "after": commit, "repository": repository}
        body = json.dumps(push).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Gitea-Event": "push",
            "X-Gitea-Delivery": secrets.token_hex(16),
            "X-Gitea-Signature": hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest(),
        }
        url = f"{self.admin}/webhook"
        async with self.session.post(url, data=body, headers=headers, timeout=ANSWER) as answer:
            assert answer.status == 202, await answer.text()

    async def sync(self) -> None:
        """Ask over the Unix socket for a look at the repository; unlike a push's it waits for none before."""
        connector = aiohttp.UnixConnector(str(self.directory / "data" / "agent.sock"))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=ANSWER) as operator,
            operator.post("http://agent/sync") as answer,
        ):
            assert answer.status == 202, await answer.text()

    async def proven(self, version: str) -> None:
        """Until the app runs at this version, out of probation."""

        async def proved() -> bool:
            app = (await self.status())["apps"].get("web") or {}
            good = (app.get("good") or {}).get("version")
            return app.get("state") == "running" and good == version and app.get("run") is None

        await self.until(proved)

    async def retired(self) -> None:
        """Until no child of the app is left but the serving one."""

        async def alone() -> bool:
            assert self.agent is not None
            children = set(proc.started(self.agent.process.pid))
            status = await self.status()
            return children == {status["agent"]["pid"], status["apps"]["web"]["child"]["pid"]}

        await self.until(alone)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Ask again until a condition holds. Raises TimeoutError with the agent's last lines."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not await condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            last = self.agent.last_lines() if self.agent else []
            raise TimeoutError("\n".join(["not within the deadline; the agent says:", *last])) from None


@asynccontextmanager
async def rig(files: Mapping[str, bytes], **flags: str) -> AsyncIterator[Rig]:
    """Everything but a running agent, in a temporary directory; ended and removed afterwards.

    Args:
        files: what the artifact server has, by name.
        flags: further flags of `emptybox run`, without dashes.
    """
    taken: set[int] = set()
    admin, app_port, spare = free_port(taken), free_port(taken), free_port(taken)
    secret = secrets.token_hex(32)
    async with AsyncExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="emptybox-bench-"))
        directory = Path(name)
        (directory / "secret").write_text(secret)
        artifacts = await stack.enter_async_context(artifact_server(directory / "artifacts", files))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        server = await stack.enter_async_context(GitServer(directory / "git"))
        repository = await server.create("state.git")
        clone = await Clone.of(repository, directory / "clone")
        built = Rig(
            directory=directory,
            repository=repository,
            artifacts=artifacts,
            admin=f"http://{HOST}:{admin}",
            app_port=app_port,
            spare_port=spare,
            secret=secret,
            session=session,
            clone=clone,
            flags={
                "--repo": repository,
                "--data": str(directory / "data"),
                "--admin": f"{HOST}:{admin}",
                "--webhook-secret-file": str(directory / "secret"),
                **{f"--{name}": value for name, value in flags.items()},
            },
        )
        try:
            yield built
        finally:
            if built.agent is not None:
                await built.agent.stop()
