"""The keeper as process 1 of a pid namespace, as in a container."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.keepers import KeeperProcess, keeper, offspring, python, said, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        (os.geteuid() != 0 or not shutil.which("unshare")) and "CI" not in os.environ,
        reason="needs the rights of root, and unshare",
    ),
]
SLEEP = "import signal; print('ready'); signal.pause()"
DAEMON = f"import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n{SLEEP}"


def inner(kept: KeeperProcess) -> int:
    """The pid of the namespace's process 1, as seen from outside."""
    return int(Path(f"/proc/{kept.pid}/task/{kept.pid}/children").read_text())


@pytest.fixture
async def contained() -> AsyncIterator[KeeperProcess]:
    async with keeper(wrapper=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]) as kept:
        yield kept


async def test_process_1_keeps_children_over_the_agents_death_and_reaps_orphans(
    contained: KeeperProcess,
) -> None:
    agent = await contained.agent()
    assert agent.client.keeper_pid == 1
    record = await agent.client.spawn(python("x", SLEEP))
    await agent.client.spawn(python("daemon", DAEMON))
    await said(agent.client, "daemon", "ready")
    await agent.client.wait("daemon")
    first, web, daemon = offspring(inner(contained))
    os.kill(int(first), signal.SIGKILL)
    agent = await contained.agent()
    assert agent.client.children["x"] == record
    os.kill(int(daemon), signal.SIGKILL)
    await until(lambda: daemon not in offspring(inner(contained)))
    assert web in offspring(inner(contained))


async def test_process_1_ends_in_order_on_term_and_leaves_nothing(contained: KeeperProcess) -> None:
    agent = await contained.agent()
    await agent.client.spawn(python("x", SLEEP))
    await agent.client.spawn(python("daemon", DAEMON))
    await said(agent.client, "daemon", "ready")
    everyone = offspring(inner(contained))
    os.kill(inner(contained), signal.SIGTERM)
    assert await agent.told_signal() == signal.SIGTERM
    agent.exit(0)
    assert await contained.ended() == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in everyone)


async def test_process_1_ignores_no_interrupt(contained: KeeperProcess) -> None:
    agent = await contained.agent()
    os.kill(inner(contained), signal.SIGINT)
    assert await agent.told_signal() == signal.SIGINT
    os.kill(inner(contained), signal.SIGINT)
    async with asyncio.timeout(20):
        await agent.client.lost.wait()
