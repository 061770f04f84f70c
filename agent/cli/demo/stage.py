"""Everything the demo needs, brought up and taken down: two servers, a clone, the agent."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agent.cli.demo.agent_process import AgentEnded, AgentProcess, command
from agent.cli.demo.archives import archive
from agent.cli.demo.artifact_server import artifact_server
from agent.cli.demo.clone import Clone
from agent.cli.demo.facts import Facts
from agent.cli.demo.forge import Delivery, Hook
from agent.cli.demo.git_server import GitServer
from agent.cli.demo.ports import free_port
from agent.cli.demo.scenery import EMPTY, VERSIONS, readme
from agent.kit.tasks import Owned

HOST = "127.0.0.1"
ANSWER = aiohttp.ClientTimeout(total=10.0)
START_DEADLINE = 20.0  # seconds until the agent answers


@dataclass(slots=True, kw_only=True)
class Stage:
    """What stands on the stage. URLs have no slash at the end."""

    directory: Path
    repository: str
    artifacts: str
    admin: str
    app: str
    app_port: int
    command: list[str]
    agent: AgentProcess
    clone: Clone
    session: aiohttp.ClientSession
    facts: Facts
    deliveries: dict[str, Delivery] = field(default_factory=dict)  # by the id of the sync each became

    @property
    def socket(self) -> Path:
        """The agent's Unix socket."""
        return self.directory / "data" / "agent.sock"

    async def get(self, path: str) -> dict[str, Any]:
        """A resource of the agent's HTTP face. Raises aiohttp.ClientError, TimeoutError."""
        async with self.session.get(self.admin + path, timeout=ANSWER) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def ask_app(self) -> str:
        """What the app answers on its public port. Raises aiohttp.ClientError, TimeoutError."""
        async with self.session.get(self.app, timeout=ANSWER) as answer:
            return f"{(await answer.text()).strip()}" if answer.status == 200 else str(answer.status)


@asynccontextmanager
async def raised(directory: Path) -> AsyncIterator[Stage]:
    """Bring everything up in a directory, with an agent that waits for its first push; take it down after.

    Raises AgentEnded, RuntimeError (git), OSError.
    """
    taken: set[int] = set()
    admin, app_port = free_port(taken), free_port(taken)
    deliveries: dict[str, Delivery] = {}
    async with AsyncExitStack() as stack:
        builds = {f"web-{version}.tar.gz": archive(version, mode) for version, (mode, _) in VERSIONS.items()}
        artifacts = await stack.enter_async_context(artifact_server(directory / "artifacts", builds))
        # Connections are not kept: whoever asks is to meet what serves now, as a new client does.
        connector = aiohttp.TCPConnector(force_close=True)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        git = await stack.enter_async_context(GitServer(directory / "git"))
        repository = await git.create("state.git")
        clone = await Clone.of(repository, directory / "clone")
        url = f"http://{HOST}:{admin}"
        await clone.commit({"README.md": readme(f"{url}/status"), "state.yaml": EMPTY}, "nothing yet")
        await clone.push()
        secret = secrets.token_hex(32)
        _write_secret(directory / "secret", secret)
        hook = Hook(
            session, f"{url}/webhook", secret.encode(), repository,
            lambda delivery: deliveries.__setitem__(delivery.sync, delivery),
        )  # fmt: skip
        words = command(
            {
                "--repo": repository,
                "--data": str(directory / "data"),
                "--admin": f"{HOST}:{admin}",
                "--webhook-secret-file": str(directory / "secret"),
            }
        )
        agent = await AgentProcess.start(words, directory / "agent.log")
        stack.push_async_callback(agent.stop)
        facts = Facts(session, f"{url}/events")
        tasks = await stack.enter_async_context(Owned("demo"))
        stage = Stage(
            directory=directory, repository=repository, artifacts=artifacts, admin=url,
            app=f"http://{HOST}:{app_port}", app_port=app_port, command=words, agent=agent, clone=clone,
            session=session, facts=facts, deliveries=deliveries,
        )  # fmt: skip
        await _answers(stage)
        git.on_push = hook.send
        tasks.start(facts.run(), name="facts")
        yield stage


def _write_secret(path: Path, secret: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)


async def _answers(stage: Stage) -> None:
    """Wait until the agent has looked at the repository once. Raises AgentEnded."""
    try:
        async with asyncio.timeout(START_DEADLINE), asyncio.TaskGroup() as group:
            guard = group.create_task(stage.agent.guard())
            await _look(stage)
            guard.cancel()
    except TimeoutError:
        last = stage.agent.last_lines()
        raise AgentEnded("\n".join(["the agent does not begin to answer; its last lines:", *last])) from None


async def _look(stage: Stage) -> None:
    while True:
        with suppress(aiohttp.ClientError):  # it does not listen yet
            if (await stage.get("/status"))["source"]["last_sync"]:
                return
        await asyncio.sleep(0.01)
