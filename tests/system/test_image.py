"""The image of the Dockerfile, really built, and run as process 1 by runc as engines do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.swarm import swarm
from tests.kit.artifact_server import ArtifactServer, need_nginx
from tests.kit.box import Box
from tests.kit.image import ROOT, Image, need, run
from tests.kit.oci import bundle
from tests.kit.proc import agent_below, facts, writable

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("image"), pytest.mark.timeout(900)]
USER = 7070
ADDED_MAX = 120 << 20  # bytes
DATA = "/var/lib/emptybox"


class Contained(Box):
    """A box whose agent is a container of the image, with settings as Compose and Kubernetes give them."""

    def __init__(self, directory: Path, image: Image) -> None:
        super().__init__(directory)
        self.image = image
        self.name = directory.name
        self.data.mkdir()
        os.chown(self.data, USER, USER)
        self.server: ArtifactServer
        self.runc = ["runc", "--root", str(directory / "runc")]

    def command(self, verb: str = "run") -> list[str]:
        environment = {
            "EMPTYBOX_REPO": self.repository.url,
            "EMPTYBOX_ADMIN": f"127.0.0.1:{self.admin}",
            "EMPTYBOX_WEBHOOK_SECRET_FILE": "/run/secrets/webhook",
            "EMPTYBOX_LOG_LEVEL": "debug",
        }
        self.secret_file.chmod(0o644)
        place = bundle(
            self.directory / "bundle", self.image, environment,
            {self.data: DATA, self.secret_file: "/run/secrets/webhook:ro"},
        )  # fmt: skip
        return [*self.runc, "run", "--bundle", str(place), self.name]

    def artifact(self, version: str, mode: str = "good", extra: Any = None) -> tuple[str, str]:
        path, digest = super().artifact(version, mode, extra)
        return f"{self.server.url}/{Path(path).name}", digest

    def state(self, version: str, mode: str = "good", **parts: Any) -> dict[str, Any]:
        run = {"command": ["python3", "-S", "bin/web"]}
        health = {"http": "/healthz", "interval": "100ms", "deadline": "20s", "probation": "200ms"}
        return super().state(version, mode, run=run, health=health, socket=None, **parts)

    def first(self) -> int:
        """The container's process 1, as seen from outside."""
        return int(json.loads(run(*self.runc, "state", self.name))["pid"])

    def inside(self, *command: str) -> int:
        """The exit code of one more program in the container."""
        done = subprocess.run([*self.runc, "exec", self.name, *command], timeout=60, check=False)
        return done.returncode


@pytest.fixture
async def contained(image: Image) -> AsyncIterator[Contained]:
    need_nginx()
    directory = Path(tempfile.mkdtemp(prefix="emptybox-", dir="/tmp"))
    directory.chmod(0o755)
    box = Contained(directory, image)
    try:
        async with ArtifactServer(directory) as server, box:
            box.server = server
            yield box
            print("\n".join(box.output[-200:]))  # shown when the test fails
    finally:
        subprocess.run([*box.runc, "delete", "--force", box.name], check=False, capture_output=True)
        shutil.rmtree(directory)


def test_the_dockerfile_has_nothing_to_lint() -> None:
    need("hadolint")
    assert run("hadolint", ROOT / "Dockerfile") == ""


def test_the_image_adds_little_and_starts_an_agent_that_is_not_root(image: Image) -> None:
    print(f"added to the base: {image.added / (1 << 20):.1f} MiB")
    assert image.added < ADDED_MAX
    assert image.config["Entrypoint"] == ["emptybox", "run"]
    assert image.config["User"] == f"{USER}:{USER}"
    assert image.config["StopSignal"] == "SIGTERM"
    assert f"EMPTYBOX_DATA={DATA}" in image.config["Env"]
    assert not list(image.tree.glob("opt/emptybox/lib/python3*/site-packages/pip*"))


async def test_the_image_under_runc_deploys_swaps_survives_and_stops_in_order(contained: Contained) -> None:
    box = contained
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    for pid in (box.first(), agent_below(box.first())):
        now = facts(pid)
        assert now["Uid"].split() == 4 * [str(USER)]
        assert {now[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (now["NoNewPrivs"], now["Seccomp"]) == ("1", "2")
        assert writable(pid) == {"/tmp", DATA}
    assert facts(box.first())["NSpid"].split()[-1] == "1"
    assert await asyncio.to_thread(box.inside, *box.image.healthcheck) == 0
    async with swarm("127.0.0.1", box.port, rate=200) as clients:
        await clients.answered("1.0", 50)
        await box.deploy("2.0", push=True)
        await box.proven("2.0")
        child = (await box.app())["child"]["pid"]
        await killed(box)
        app = await box.proven("2.0")
        assert app["child"]["pid"] == child
        await box.deploy("3.0", push=True)
        await box.proven("3.0")
        await clients.answered("3.0", 50)
    assert set(clients.new) == {"1.0", "2.0", "3.0"}
    mode = next(c for c in (await box.app())["conditions"] if c["type"] == "SocketMode")
    assert mode["reason"] == "Adopted"
    assert await box.stop(signal.SIGTERM) == 0
    said = "\n".join(box.output)
    places = [
        said.rindex(text) for text in ("info    shutting down", "web | version 3.0 ends", "info    stopped")
    ]
    assert places == sorted(places)
    assert json.loads(run(*box.runc, "list", "--format", "json") or "null") is None


async def killed(box: Contained) -> None:
    """Kill -9 of the agent, until the next one answers."""
    agent = agent_below(box.first())
    os.kill(agent, signal.SIGKILL)

    async def another() -> bool:
        try:
            return agent_below(box.first()) != agent and await box.answers()
        except (StopIteration, FileNotFoundError):
            return False

    await box.until(another)


async def test_the_healthcheck_fails_where_no_agent_answers(contained: Contained) -> None:
    box = contained
    await box.start()
    assert await asyncio.to_thread(box.inside, *box.image.healthcheck) == 0
    stopped = agent_below(box.first())
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert await asyncio.to_thread(box.inside, *box.image.healthcheck) != 0
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert await box.stop() == 0
