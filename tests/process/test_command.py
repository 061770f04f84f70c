from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from agent.domain.errors import Permanent
from agent.process.command import CommandResult, run_command
from agent.process.context import ChildContext
from agent.process.users import User
from tests.kit.keepers import Agent, KeeperProcess, offspring, until

LEAVES = """
import os, signal
reading, writing = os.pipe()
if os.fork() == 0:
    print(os.getpid())
    os.write(writing, b".")
    signal.pause()
os.read(reading, 1)
"""


async def run(agent: Agent, code: str, timeout: float = 20.0) -> CommandResult:
    context = ChildContext("web", Path("/"), {"PATH": os.defpath}, User("me"))
    argv = [sys.executable, "-I", "-S", "-u", "-c", code]
    return await run_command(agent.client, name="migrate", argv=argv, context=context, timeout=timeout)


async def test_a_command_that_succeeds_says_what_it_said(kept: KeeperProcess, agent: Agent) -> None:
    result = await run(agent, "print('one'); print('two')")
    assert result.ok
    assert result.log == ("one", "two")
    assert result.ended == "ended with exit code 0"
    assert agent.client.children == {}
    assert "web/migrate | one\nweb/migrate | two\n" in kept.output


async def test_the_exit_code_is_the_verdict_and_75_means_later(agent: Agent) -> None:
    failed = await run(agent, "raise SystemExit(3)")
    assert (failed.ok, failed.later, failed.ended) == (False, False, "ended with exit code 3")
    later = await run(agent, "raise SystemExit(75)")
    assert (later.ok, later.later) == (False, True)
    killed = await run(agent, "import os; os.kill(os.getpid(), 9)")
    assert (killed.ok, killed.signal) == (False, 9)
    assert killed.ended == "was ended by signal 9 (Killed)"


async def test_a_deadline_ends_the_whole_group(agent: Agent) -> None:
    code = "import os, signal; os.fork(); os.write(1, b'%d\\n' % os.getpid()); signal.pause()"
    result = await run(agent, code, timeout=0.5)
    assert not result.ok
    assert result.ended == "did not end within 0.5 s and was stopped"
    pids = [int(line) for line in result.log]
    assert len(pids) == 2
    await until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


async def test_a_command_that_succeeds_only_when_told_to_stop_has_not_succeeded(agent: Agent) -> None:
    code = "import signal, os; signal.signal(15, lambda *_: os._exit(0)); signal.pause()"
    result = await run(agent, code, timeout=0.3)
    assert (result.code, result.ok) == (0, False)


async def test_what_a_command_leaves_behind_ends_with_it(agent: Agent) -> None:
    result = await run(agent, LEAVES)
    assert result.ok
    await until(lambda: not os.path.exists(f"/proc/{result.log[0]}"))


async def test_a_cancelled_command_is_stopped_and_forgotten(kept: KeeperProcess, agent: Agent) -> None:
    task = asyncio.ensure_future(run(agent, "import signal; print('ready'); signal.pause()"))
    await until(lambda: "web/migrate | ready" in kept.output)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert agent.client.children == {}
    assert offspring(kept.pid) == [str(agent.pid)]


async def test_a_command_outlives_the_agent_that_ran_it(kept: KeeperProcess, agent: Agent) -> None:
    agent_there = f"os.path.exists('/proc/{agent.pid}')"
    code = f"import os, time\nprint('ready')\nwhile {agent_there}: time.sleep(0.01)\nprint('done')"
    task = asyncio.ensure_future(run(agent, code))
    await until(lambda: "web/migrate | ready" in kept.output)
    agent.kill()
    successor = await kept.agent()
    (name,) = successor.client.children
    assert name.startswith("web/migrate-")
    assert (await successor.client.wait(name)).code == 0
    assert await successor.client.tail(name) == ["ready", "done"]
    task.cancel()
    await asyncio.wait([task])


async def test_a_command_that_is_not_there_raises_what_a_child_would(agent: Agent) -> None:
    context = ChildContext("web", Path("/"), {}, User("me"))
    with pytest.raises(Permanent) as caught:
        await run_command(agent.client, name="check", argv=["bin/none"], context=context, timeout=5)
    assert caught.value.reason == "CommandNotFound"
