"""compose.yaml and its walk-through: right by Compose itself, and tried as far as no engine is needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kit.box import Box
from tests.kit.forges import deliver, push_document
from tests.kit.ports import free_port

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/compose"
COMPOSE = Path(sys.executable).with_name("docker-compose")
PAGE = (EXAMPLE / "README.md").read_text()
DEADLINE = 60.0


def compose(file: Path) -> subprocess.CompletedProcess[str]:
    """What Compose makes of a file: everything merged, filled in and checked."""
    return subprocess.run(
        [COMPOSE, "--project-directory", ROOT, "--file", file, "config", "--format", "json"],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found = compose(ROOT / "compose.yaml")
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    parsed: dict[str, Any] = json.loads(found.stdout)
    return parsed


def test_compose_sees_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((ROOT / "compose.yaml").read_text().replace("read_only:", "readonly:"))
    assert "readonly" in compose(wrong).stderr


def test_what_the_services_name_is_there(services: dict[str, Any]) -> None:
    agent = services["services"]["agent"]
    assert (Path(agent["build"]["context"]) / agent["build"]["dockerfile"]).is_file()
    assert Path(services["secrets"]["webhook"]["file"]).is_file()
    bound = [v["source"] for s in services["services"].values() for v in s["volumes"] if v["type"] == "bind"]
    assert bound == [str(EXAMPLE / "prometheus.yml")]
    everywhere = [p for s in services["services"].values() for p in s["ports"] if p["host_ip"] != "127.0.0.1"]
    assert everywhere == []
    assert agent["stop_grace_period"] == "1m0s"
    assert agent["environment"]["EMPTYBOX_GRACE_PERIOD"] == "60s"


def test_the_walk_through_speaks_of_what_is_there(services: dict[str, Any]) -> None:
    agent = services["services"]["agent"]
    repository, hook = (json.loads(body) for body in bodies())
    assert repository == {"name": "state", "default_branch": agent["environment"]["EMPTYBOX_REF"]}
    assert agent["environment"]["EMPTYBOX_REPO"] == "http://gitea:3000/ops/state.git"
    assert hook["config"]["url"] == f"http://agent:{agent['ports'][0]['target']}/webhook"
    assert (hook["type"], hook["events"], hook["config"]["content_type"]) == ("gitea", ["push"], "json")
    for name in re.findall(r"examples/compose/[\w.-]+", PAGE):
        assert (ROOT / name).is_file()


def bodies() -> list[str]:
    """What the page's curl commands send, as a shell makes it."""
    found = re.findall(r"--json ('.*?')\n```", PAGE, re.DOTALL)
    done = subprocess.run(
        ["sh", "-c", "\n".join(f"printf '%s\\0' {word}" for word in found)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=DEADLINE,
    )  # fmt: skip
    return done.stdout.split("\0")[:-1]


@pytest.fixture
async def walked(box: Box, services: dict[str, Any]) -> Box:
    """The agent with the settings of compose.yaml; what names other services or places is this test's."""
    given = dict(services["services"]["agent"]["environment"])
    assert given.pop("EMPTYBOX_WEBHOOK_SECRET_FILE") == "/run/secrets/webhook"
    del given["EMPTYBOX_REPO"]
    box.settings["--webhook-secret-file"] = services["secrets"]["webhook"]["file"]
    box.repository = await box.forge.repository("ops/state.git")
    await box.start(environment=given)
    return box


def example(port: int) -> str:
    text = (EXAMPLE / "state.yaml").read_text()
    return text.replace("8080", str(port)).replace("[python3,", f"[{sys.executable},")


async def push(box: Box, state: str) -> None:
    """Push, and deliver what Gitea sends; it knows itself by another address than the agent does."""
    commit = await box.commit(state)
    secret = (EXAMPLE / "webhook-secret").read_bytes().strip()
    delivery = deliver("gitea", push_document(after=commit, repository="ops/state"), secret)
    async with (
        aiohttp.ClientSession() as session,
        session.post(box.url("/webhook"), data=delivery.body, headers=delivery.headers) as answer,
    ):
        assert answer.status == 202, await answer.text()


async def test_the_walk_through_ends_in_a_greeting_and_a_change_of_it(walked: Box) -> None:
    await push(walked, example(walked.port))
    await says(walked, "<h1>Hello from Git</h1>\n")
    await push(walked, example(walked.port).replace("Hello from Git", "Hello again"))
    await says(walked, "<h1>Hello again</h1>\n")


async def says(box: Box, page: str) -> None:
    async def said() -> bool:
        return await box.get() == (200, page)

    await box.until(said)


@contextlib.asynccontextmanager
async def prometheus(directory: Path, targets: str) -> AsyncIterator[str]:
    """Prometheus with the example's very file, but for where the agent is; its URL."""
    config = directory / "prometheus.yml"
    text = (EXAMPLE / "prometheus.yml").read_text()
    assert "agent:7070" in text
    config.write_text(text.replace("agent:7070", targets))
    subprocess.run(["promtool", "check", "config", config], check=True, capture_output=True, timeout=DEADLINE)
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/tsdb",
        f"--web.listen-address={address}", stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://{address}"
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            await process.wait()


async def test_prometheus_scrapes_the_agent_with_the_examples_file(walked: Box, tmp_path: Path) -> None:
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        assert "CI" not in os.environ, "CI must have prometheus"
        pytest.skip("prometheus is missing")
    await push(walked, example(walked.port))
    await says(walked, "<h1>Hello from Git</h1>\n")
    async with (
        prometheus(tmp_path, f"127.0.0.1:{walked.admin}") as url,
        aiohttp.ClientSession() as session,
    ):

        async def value(query: str) -> str | None:
            try:
                async with session.get(f"{url}/api/v1/query", params={"query": query}) as answer:
                    (found,) = (await answer.json())["data"]["result"] or [None]
            except (aiohttp.ClientError, KeyError):
                return None
            return str(found["value"][1]) if found else None

        async def scraped() -> bool:
            return await value('up{job="emptybox"}') == "1"

        async def seen() -> bool:
            return await value('emptybox_app_up{app="hello"}') == "1"

        await walked.until(scraped, DEADLINE)
        await walked.until(seen, DEADLINE)
