"""Nothing below the data directory is changed in the event loop's thread: a disk may hang at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from tests.kit import site
from tests.kit.box import Box
from tests.kit.git_server import Content
from tests.kit.world import World

TREE: dict[str, Content] = {"web.conf.j2": "of version {{ version }}\n"}
PARTS: dict[str, Any] = {
    "files": [{"template": "web.conf.j2", "target": "etc/web.conf"}],
    "migrate": [{"name": "schema", "command": ["/bin/true"], "kind": "expand", "timeout": "10s"}],
    "dirs": {"state": "data", "cache": "cache"},
}


async def test_the_event_loop_never_changes_what_is_on_the_disk(box: Box, tmp_path: Path) -> None:
    audit, world = tmp_path / "audit", World(box)
    await world.deploy("1.0", tree=TREE, **PARTS)
    environment = {"PYTHONPATH": site.__path__[0], "AUDITED": str(box.data), "AUDIT": str(audit)}
    await box.start(environment=environment)
    await box.proven("1.0")
    sleeper = {"command": ["/bin/sleep", "1000"]}
    other = world.app("1.0", listen=None, socket=None, health=None, run=sleeper)
    web = world.app("2.0", swap="restart", **PARTS)
    await box.webhook(await world.commit({"web": web, "other": other}, TREE))
    await box.app_is("other", current__version="1.0")
    await box.proven("2.0")
    await world.crash()
    await box.serving("2.0")
    pid = await box.agent_pid()
    await world.kill_agent()

    async def succeeded() -> bool:
        try:
            return await box.agent_pid() != pid
        except aiohttp.ClientError:
            return False

    await box.until(succeeded)
    await box.proven("2.0")
    assert (audit.read_text().splitlines() if audit.exists() else []) == []
