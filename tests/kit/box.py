"""A whole emptybox for tests: the real command, a state repository on a real Git server, real artifacts.

async with Box(tmp_path) as box:
    await box.deploy("1.0")                       # commits state.yaml, starts nothing
    await box.start()
    await box.serving("1.0")                      # until the app's port answers so
    await box.deploy("2.0", push=True)            # a real push, then a signed webhook
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import hmac
import io
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from agent.cli.demo import server as sample
from tests.kit.clients import Load
from tests.kit.git_server import Content, Forge, Repository
from tests.kit.ports import free_port

__all__ = ["DEADLINE", "SECRET", "Box", "Load", "archive"]

SECRET = b"an unguessable test secret"
DEADLINE = 30.0


def archive(version: str, mode: str = "good", extra: dict[str, bytes] | None = None) -> bytes:
    """The sample server as tar.gz; see its own text for the modes."""
    files = {
        "web/bin/web": Path(sample.__file__).read_bytes(),
        "web/bin/VERSION": f"{version} {mode}\n".encode(),
        **{f"web/{name}": data for name, data in (extra or {}).items()},
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755 if name == "web/bin/web" else 0o644
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


class Box:
    """One agent under its keeper, and everything around it."""

    def __init__(self, directory: Path, *, settings: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self.admin = free_port()
        self.webhooks = self.admin  # where deliveries go
        self.settings = settings or {}
        self.wrapper: list[str] = []  # a program and its arguments that start the agent
        self.module = ["-m", "agent"]  # how Python is told what to run
        self._log = directory / "output.log"
        self.process: asyncio.subprocess.Process | None = None
        self.forge = Forge(directory / "forge")
        self.repository: Repository
        self.artifacts = directory / "artifacts"
        self.artifacts.mkdir(parents=True)
        self._stack = contextlib.AsyncExitStack()
        self._session: aiohttp.ClientSession
        self._deliveries = 0

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.forge)
        self.repository = await self.forge.repository("state.git")
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                timeout=aiohttp.ClientTimeout(total=DEADLINE),
            )
        )
        self.secret_file = self.directory / "secret"
        self.secret_file.write_bytes(SECRET)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            await self._stack.aclose()
        if error is not None:
            print("\n".join(self.output[-200:]))

    # -- the agent ---------------------------------------------------------------------------------

    def command(self, verb: str = "run") -> list[str]:
        """The command line as a user types it."""
        flags = {
            "--repo": self.repository.url,
            "--data": str(self.data),
            "--admin": f"127.0.0.1:{self.admin}",
            "--webhook-secret-file": str(self.secret_file),
            "--file-root": str(self.artifacts),
            "--log-level": "debug",
            **self.settings,
        }
        return [
            *self.wrapper,
            sys.executable,
            "-P",
            *self.module,
            verb,
            *(f"{k}={v}" for k, v in flags.items()),
        ]

    async def start(self, verb: str = "run", environment: dict[str, str] | None = None) -> None:
        """Start the agent and wait until its admin listener answers (not for `once`)."""
        with open(self._log, "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command(verb),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        if verb == "run":
            await self.until(self.answers)

    @property
    def output(self) -> list[str]:
        """Every line that keeper, agent and app have written."""
        return self._log.read_text(errors="replace").splitlines() if self._log.exists() else []

    async def answers(self) -> bool:
        """Whether /healthz answers; fails at once when the agent has ended."""
        if self.process is not None and self.process.returncode is not None:
            raise AssertionError(
                f"the agent ended with {self.process.returncode}:\n" + "\n".join(self.output)
            )
        try:
            async with self._session.get(self.url("/healthz")) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def stop(self, number: int = signal.SIGTERM) -> int | None:
        """Stop the agent in order (or with another signal) and wait; returns its exit code."""
        if self.process is None:
            return None
        if self.process.returncode is None:
            self.process.send_signal(number)
        code = await self.ended()
        self.process = None
        return code

    async def ended(self) -> int:
        """Wait for the end of the keeper; its exit code."""
        assert self.process is not None
        try:
            async with asyncio.timeout(DEADLINE):
                code = await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError("the agent does not end:\n" + "\n".join(self.output[-50:])) from None
        return code

    async def agent_pid(self) -> int:
        """The pid of the agent under the keeper."""
        return int((await self.status())["agent"]["pid"])

    # -- the state repository ------------------------------------------------------------------------

    def artifact(
        self, version: str, mode: str = "good", extra: dict[str, bytes] | None = None
    ) -> tuple[str, str]:
        """Put an archive where the agent can fetch it; returns its URL and sha256."""
        data = archive(version, mode, extra)
        path = self.artifacts / f"web-{version}-{mode}.tar.gz"
        path.write_bytes(data)
        return path.as_uri(), hashlib.sha256(data).hexdigest()

    def state(self, version: str, mode: str = "good", **parts: Any) -> dict[str, Any]:
        """The desired state with one app `web`; `parts` replace or add keys of the app, None removes one."""
        url, digest = self.artifact(version, mode)
        web: dict[str, Any] = {
            "version": version,
            "artifact": {"url": url, "checksum": f"sha256:{digest}", "strip": 1},
            "run": {"command": [sys.executable, "-S", "bin/web"]},
            "listen": self.port,
            "socket": "fd",
            "health": {"http": "/healthz", "interval": "100ms", "deadline": "5s", "probation": "1s"},
        }
        web.update(parts)
        return {"schema": 1, "apps": {"web": {k: v for k, v in web.items() if v is not None}}}

    async def commit(self, state: dict[str, Any] | str, files: dict[str, Content] | None = None) -> str:
        """Commit a state (YAML is a superset of JSON) and publish it silently; returns the commit."""
        text = state if isinstance(state, str) else json.dumps(state, indent=1)
        return await self.repository.put({"state.yaml": text, **(files or {})})

    async def deploy(self, version: str, mode: str = "good", *, push: bool = False, **parts: Any) -> str:
        """Commit the state of a version; with `push`, tell the agent by a signed webhook."""
        commit = await self.commit(self.state(version, mode, **parts))
        if push:
            status, answer = await self.webhook(commit)
            assert status == 202, answer
        return commit

    async def webhook(
        self, commit: str, *, wait: bool = False, secret: bytes = SECRET, ref: str = "refs/heads/main"
    ) -> tuple[int, dict[str, Any]]:
        """A GitHub push delivery, signed; returns status and JSON."""
        self._deliveries += 1
        body = json.dumps(
            {
                "ref": ref,
                "before": "0" * 40,
                "after": commit,
                "repository": {
                    "full_name": "state",
                    "clone_url": self.repository.url,
                    "default_branch": "main",
                },
            }
        ).encode()
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": f"delivery-{self._deliveries}",
            "X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(),
            "Content-Type": "application/json",
        }
        path = "/webhook?wait=1" if wait else "/webhook"
        url = f"http://127.0.0.1:{self.webhooks}{path}"
        async with self._session.post(url, data=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    # -- looking -------------------------------------------------------------------------------------

    def url(self, path: str) -> str:
        """A URL of the admin listener."""
        return f"http://127.0.0.1:{self.admin}{path}"

    async def status(self) -> dict[str, Any]:
        """GET /status."""
        async with self._session.get(self.url("/status")) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def app(self, name: str = "web") -> dict[str, Any]:
        """The app's part of /status; empty while the agent does not know it."""
        found: dict[str, Any] = (await self.status())["apps"].get(name, {})
        return found

    async def history(self) -> list[dict[str, Any]]:
        """The runs, newest first."""
        async with self._session.get(self.url("/history")) as answer:
            found = await answer.json()
        runs: list[dict[str, Any]] = found["runs"] if isinstance(found, dict) else found
        return runs

    async def metrics(self) -> str:
        """GET /metrics."""
        async with self._session.get(self.url("/metrics")) as answer:
            return await answer.text()

    async def get(self, path: str = "/", headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Ask the app on its public port. (0, reason) when there is no answer."""
        try:
            async with self._session.get(f"http://127.0.0.1:{self.port}{path}", headers=headers) as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientError as error:
            return 0, str(error)

    async def until(self, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
        """Ask again until the (async) condition is true; returns its value."""
        end = time.monotonic() + deadline
        while True:
            value = await condition()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(
                    "not within the deadline; the agent's last lines:\n" + "\n".join(self.output[-60:])
                )
            await asyncio.sleep(0.01)

    async def serving(self, version: str) -> None:
        """Until the public port answers with this version."""

        async def served() -> bool:
            return await self.get() == (200, f"{version}\n")

        await self.until(served)

    async def app_is(self, name: str = "web", /, **wanted: Any) -> dict[str, Any]:
        """Until the app's status has these values (nested keys by double underscore)."""

        async def matches() -> dict[str, Any] | None:
            try:
                app = await self.app(name)
            except aiohttp.ClientError:
                return None
            return app if all(_dig(app, key) == value for key, value in wanted.items()) else None

        found: dict[str, Any] = await self.until(matches)
        return found

    async def proven(self, version: str) -> dict[str, Any]:
        """Until this version is current, good and out of probation."""
        return await self.app_is(state="running", current__version=version, good__version=version)


def _dig(value: Any, path: str) -> Any:
    for key in path.split("__"):
        value = value.get(key) if isinstance(value, dict) else None
    return value
