from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from agent.domain.errors import Permanent
from agent.domain.spec import StopSpec
from agent.process.stop import end_group, signal_number, stop
from tests.kit.keepers import Agent, KeeperProcess, python, said

GRACE = StopSpec(grace=20.0)
SHORT = StopSpec(grace=0.1)
SLEEP = "import signal; print('ready'); signal.pause()"
# Lines are written whole by os.write: a handler may come between print's two writes.
IGNORES = """
import os, signal
signal.signal(15, lambda *_: os.write(1, b"no\\n"))
os.write(1, b"ready\\n")
while True: signal.pause()
"""
# The leader dies of TERM at once; its child, in the same group, finishes its work first.
DRAINS = """
import os, signal, sys, time
if os.fork() == 0:
    def finish(*_):
        time.sleep(0.05)
        os.write(1, b"drained\\n")
        os._exit(0)
    signal.signal(15, finish)
    os.write(1, b"ready\\n")
    while True: signal.pause()
signal.pause()
"""
STAYS = f"import os, signal\nif os.fork(): signal.pause()\n{IGNORES}"


async def start(agent: Agent, code: str) -> int:
    record = await agent.client.spawn(python("x", code))
    await said(agent.client, "x", "ready")
    return record.pid


def group(pid: int) -> list[int]:
    """Living members of a process group."""
    found = []
    for name in os.listdir("/proc"):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] == str(pid) and fields[0] != "Z":
            found.append(int(name))
    return found


async def test_a_child_that_listens_is_asked_and_no_more(agent: Agent) -> None:
    pid = await start(agent, SLEEP)
    record = await stop(agent.client, "x", GRACE)
    assert record.signal == signal.SIGTERM
    assert not group(pid)


async def test_the_signal_is_the_one_the_app_wants(agent: Agent) -> None:
    await start(
        agent, "import signal, sys; signal.signal(3, lambda *_: sys.exit(9)); print('ready'); signal.pause()"
    )
    assert (await stop(agent.client, "x", StopSpec(signal="QUIT", grace=20.0))).code == 9


async def test_a_child_that_ignores_the_signal_is_killed_after_its_grace(agent: Agent) -> None:
    pid = await start(agent, IGNORES)
    record = await stop(agent.client, "x", SHORT)
    assert record.signal == signal.SIGKILL
    assert await agent.client.tail("x") == ["ready", "no"]
    assert not group(pid)


async def test_who_outlives_the_leader_may_finish_within_the_grace(agent: Agent) -> None:
    pid = await start(agent, DRAINS)
    assert (await stop(agent.client, "x", GRACE)).signal == signal.SIGTERM
    assert await agent.client.tail("x") == ["ready", "drained"]
    assert not group(pid)


async def test_who_stays_after_the_leader_is_killed(agent: Agent) -> None:
    pid = await start(agent, STAYS)
    assert (await stop(agent.client, "x", SHORT)).signal == signal.SIGTERM
    assert not group(pid)


async def test_what_a_crashed_leader_left_is_stopped_too(agent: Agent) -> None:
    pid = await start(agent, STAYS)
    await agent.client.signal("x", signal.SIGKILL, group=False)
    await agent.client.wait("x")
    assert group(pid)
    await end_group(agent.client, "x")
    assert not group(pid)
    assert (await stop(agent.client, "x", GRACE)).signal == signal.SIGKILL


async def test_cancelling_does_not_stop_the_ladder_half_way(kept: KeeperProcess, agent: Agent) -> None:
    pid = await start(agent, STAYS)
    task = asyncio.ensure_future(stop(agent.client, "x", SHORT))
    await asyncio.sleep(0)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not group(pid)
    assert not agent.client.children["x"].running


async def test_an_unknown_child_or_signal_is_an_error(agent: Agent) -> None:
    with pytest.raises(LookupError):
        await stop(agent.client, "nobody", GRACE)
    assert signal_number("SIGQUIT") == signal_number("quit") == signal.SIGQUIT
    with pytest.raises(Permanent, match="no signal 'NOPE'"):
        signal_number("NOPE")
