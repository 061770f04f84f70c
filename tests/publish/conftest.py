from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.publish import places
from tests.cli.stage import Answer, run_here

_OURS = ("AWS_", "EMPTYBOX_", "GIT_", "DOCKER_", "NETRC", "REGISTRY_AUTH_FILE")
QUIET = {n: None for n in os.environ if n.startswith(_OURS) or n.lower().endswith("_proxy")}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_PAUSE", 0.001)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small build."""
    root = tmp_path / "dist"
    (root / "bin").mkdir(parents=True)
    (root / "bin/web").write_bytes(b"#!/bin/sh\necho 1.0\n")
    (root / "bin/web").chmod(0o755)
    (root / "share").mkdir()
    (root / "share/page").write_text("hello\n")
    return root


class Ci:
    """A CI machine: `emptybox publish`, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.home.mkdir()

    async def publish(self, *words: object, env: dict[str, str] | None = None) -> Answer:
        """Carry out the command."""
        around = {**QUIET, "HOME": str(self.home), "GIT_CONFIG_NOSYSTEM": "1", **(env or {})}
        return await asyncio.to_thread(run_here, "publish", *map(str, words), env=around)

    async def told(self, *words: object, env: dict[str, str] | None = None) -> dict[str, Any]:
        """The same, which must end well; what --json tells."""
        answer = await self.publish(*words, "--json", env=env)
        assert answer.code == 0, answer.err
        told = json.loads(answer.out)
        assert isinstance(told, dict)
        return told


@pytest.fixture
def ci(tmp_path: Path) -> Ci:
    return Ci(tmp_path / "ci-home")
