"""examples/application-less as it lies there: a box without an application, filled by polling alone."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.source.desired import HostView, validate
from tests.kit.artifact_server import ArtifactServer
from tests.kit.box import Box

EXAMPLE = Path(__file__).parents[2] / "examples/application-less"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ArtifactServer]:
    locations = "location ~ ^/moved/(.*)$ { return 302 /$1; }"
    async with ArtifactServer(tmp_path, locations=locations) as server:
        yield server


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with Box(tmp_path / "box", settings={"--poll": "1s"}) as box:
        yield box


def program(version: str, broken: bool = False) -> bytes:
    """The sample program as a release."""
    text = (EXAMPLE / "app").read_text().replace('"0.1.0"', f'"{version}"')
    text = text.replace("#!/usr/bin/env python3", f"#!{sys.executable}")
    return (text.replace("    reload()\n", "    sys.exit(3)\n") if broken else text).encode()


async def push(box: Box, server: ArtifactServer, version: str = "0.1.0", **files: str | None) -> None:
    """The example's repository, its URL led to the test's server and its port to one that is free."""
    state = json.loads((EXAMPLE / "state.json").read_text())
    state["version"] = version
    state["distro-url"] = state["distro-url"].replace("https://dist.example", f"{server.url}/moved")
    state["vars"] |= {"port": str(box.port)} | json.loads(files.pop("vars", None) or "{}")
    content: dict[str, Any] = {"state.json": json.dumps(state)}
    if "template" not in files:
        content["templates/app"] = (EXAMPLE / "templates/app").read_text()
    await box.repository.put(content)


async def says(box: Box, text: str) -> None:
    async def said() -> bool:
        return await box.get() == (200, text)

    await box.until(said)


async def downloads(server: ArtifactServer, name: str) -> int:
    return sum(1 for line in server._log() if line.path == f"/{name}" and line.status == 200)


async def test_the_repository_is_deployed_as_it_is_and_nothing_is_done_twice(
    box: Box, server: ArtifactServer
) -> None:
    server.put("app-0.1.0", program("0.1.0"))
    server.put("app-0.2.0", program("0.2.0"))
    server.put("app-0.3.0", program("0.3.0", broken=True))
    await push(box, server)
    await box.start()
    await says(box, "hello from 0.1.0\n")
    first = (await box.app_is("app", current__version="0.1.0"))["child"]["pid"]
    assert any("has no checksum" in line for line in box.output)

    await push(box, server, vars='{"greeting": "good day"}')
    await says(box, "good day from 0.1.0\n")  # another configuration: started again, nothing downloaded
    app = await box.app_is("app", run=None)
    assert app["child"]["pid"] != first
    assert await downloads(server, "app-0.1.0") == 1

    await push(box, server, "0.2.0")
    await says(box, "hello from 0.2.0\n")
    second = (await box.app_is("app", current__version="0.2.0"))["child"]["pid"]

    await push(box, server, "0.3.0")  # one that ends at once
    await box.app_is("app", wanted__version="0.3.0", last_failure__reason="ChildExited")
    await says(box, "hello from 0.2.0\n")
    await push(box, server, "0.4.0")  # one that was never uploaded
    app = await box.app_is("app", wanted__version="0.4.0", last_failure__reason="ArtifactNotFound")
    assert app["current"]["version"] == "0.2.0"
    await says(box, "hello from 0.2.0\n")
    assert app["child"]["pid"] != second  # swap: restart; it went, and came back
    runs = len(await box.history())
    polls = (await box.status())["source"]

    async def polled() -> bool:
        return bool((await box.status())["source"] != polls)

    await box.until(polled)
    assert len(await box.history()) == runs  # a poll that finds nothing new does nothing
    assert await downloads(server, "app-0.2.0") == 1


def test_both_forms_of_the_example_are_valid(tmp_path: Path) -> None:
    view = HostView(name="box", labels={})
    assert validate(EXAMPLE, "state.json", view) == []
    assert validate(EXAMPLE, "full.yaml", view) == []


async def test_the_template_may_lie_in_the_image(box: Box, server: ArtifactServer) -> None:
    image = box.directory / "image"
    image.mkdir()
    (image / "app").write_text((EXAMPLE / "templates/app").read_text())
    box.settings["--templates"] = str(image)
    server.put("app-0.1.0", program("0.1.0"))
    await push(box, server, template=None)
    await box.start()
    await says(box, "hello from 0.1.0\n")


async def test_the_full_form_keeps_every_promise(box: Box, server: ArtifactServer) -> None:
    data = program("0.1.0")
    server.put("app-0.1.0", data)
    text = (
        (EXAMPLE / "full.yaml")
        .read_text()
        .replace("https://dist.example", server.url)
        .replace(
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            hashlib.sha256(data).hexdigest(),
        )
        .replace("8080", str(box.port))
        .replace("probation: 30s", "probation: 100ms")
    )
    await box.commit(text)
    await box.start()
    await says(box, "hello from 0.1.0\n")
    app = await box.app_is("app", state="running", good__version="0.1.0")
    for word in ("init", "migrate"):
        assert any(line.endswith(f"app 0.1.0: {word}") for line in box.output), word

    await box.commit(text.replace("greeting: hello", "greeting: good day"))
    await says(box, "good day from 0.1.0\n")
    assert (await box.app("app"))["child"]["pid"] == app["child"]["pid"]  # reloaded, not started again

    await box.commit(text.replace("greeting = ", "greet = "))
    await box.app_is("app", last_failure__reason="CheckFailed")
    assert await box.get() == (200, "good day from 0.1.0\n")

    os.kill(app["child"]["pid"], 9)

    def told(word: str) -> bool:
        return any(line.endswith(f"app 0.1.0: {word}") for line in box.output)

    async def crashed() -> bool:
        return told("crashed")

    await box.until(crashed)
    await says(box, "good day from 0.1.0\n")  # who came meanwhile has waited
    assert await box.stop() == 0
    assert told("cleanup")
