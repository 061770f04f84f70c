from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from agent.keeper.client import KeeperLost
from agent.keeper.protocol import HEADER
from tests.kit.keepers import Agent, KeeperProcess, keeper, python, said, until

SLEEP = "import signal; print('ready'); signal.pause()"
IGNORE_TERM = (
    "import signal; signal.signal(15, lambda *_: print('no')); print('ready')\nwhile True: signal.pause()"
)
ESCAPED = f"import os, sys\nif os.fork() == 0:\n os.setsid()\n if os.fork(): os._exit(0)\n {SLEEP}"


def gone(*pids: int) -> bool:
    """Whether none of the processes exists (a zombie of someone else's counts as gone)."""
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            return False
    return True


async def start(agent: Agent, child: str, code: str) -> int:
    record = await agent.client.spawn(python(child, code))
    await said(agent.client, child, "ready")
    return record.pid


async def test_kill_9_of_the_agent_touches_nothing_and_the_next_one_is_told_all(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    running = await agent.client.spawn(python("runs", SLEEP, note="n"))
    ends = python(
        "ends",
        "import sys; print('ready'); sys.stdin = open(sys.argv[1]); print(sys.stdin.read()); sys.exit(7)",
    )
    fifo = f"/proc/{os.getpid()}/fd/{(pipe := os.pipe())[0]}"
    ends.argv.append(fifo)
    await agent.client.spawn(ends)
    await said(agent.client, "ends", "ready")
    await agent.client.note("a", "1")
    await agent.client.note("b", "2")
    await agent.client.note("b", None)
    agent.kill()
    os.write(pipe[1], b"last words")
    os.close(pipe[1])
    for _ in range(3):
        agent = await kept.agent()
        assert agent.client.notes == {"a": "1"}
        assert agent.client.children["runs"] == running
        assert (await agent.client.wait("ends")).code == 7
        assert await agent.client.tail("ends") == ["ready", "last words"]
        agent.kill()
    os.close(pipe[0])
    agent = await kept.agent()
    await agent.client.forget("ends")
    agent.kill()
    assert set((await kept.agent()).client.children) == {"runs"}
    assert "the agent ended with signal 9; again in" in kept.output


async def test_what_an_agent_started_itself_ends_with_it() -> None:
    code = "import os, signal\nif os.fork() == 0: print('helper', os.getpid(), flush=True)\nsignal.pause()"
    async with keeper(command=[sys.executable, "-I", "-S", "-c", code]) as kept:
        await until(lambda: "helper" in kept.output)
        helper = int(kept.output.split()[1])
        Path(f"/proc/{kept.pid}/task/{kept.pid}/children").read_text()
        os.kill(
            int(Path(f"/proc/{kept.pid}/task/{kept.pid}/children").read_text().split()[0]), signal.SIGKILL
        )
        await until(lambda: gone(helper))


UNREAD = """
import os, signal, sys
from agent.keeper.loop import Keeper
keeper = Keeper([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
keeper._start_agent()
link = keeper.link
link.send({"id": 1, "ok": {}})
os.kill(link.pid, signal.SIGKILL)
status = os.waitpid(link.pid, 0)[1]
keeper._agent_ended(link, os.waitstatus_to_exitcode(status))  # as where SIGCHLD comes while something is done
print("again" if keeper.reactor.waits("start") else "never again")
"""


async def test_an_agent_that_dies_before_it_has_read_all_is_succeeded() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", UNREAD, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(30):
        told = (await process.communicate())[0].decode()
    assert told.split()[-1] == "again", told


async def test_signals_are_forwarded_to_the_agent(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        os.kill(kept.pid, number)
        assert await agent.told_signal() == number


async def test_a_signal_of_the_terminal_reaches_the_agent_once() -> None:
    async with keeper(wrapper=["setsid"]) as kept:
        agent = await kept.agent()
        os.killpg(kept.pid, signal.SIGINT)
        assert await agent.told_signal() == signal.SIGINT
        os.kill(kept.pid, signal.SIGUSR1)
        assert await agent.told_signal() == signal.SIGUSR1


async def test_exit_0_of_the_agent_ends_all_in_order(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    pids = [await start(agent, f"x{n}", SLEEP) for n in range(3)]
    agent.exit(0)
    assert await kept.ended() == 0
    assert gone(agent.pid, *pids)


async def test_children_that_do_not_listen_to_term_are_killed() -> None:
    async with keeper(GRACE=0.2) as kept:
        agent = await kept.agent()
        pid = await start(agent, "x", IGNORE_TERM)
        await start(agent, "y", ESCAPED)
        escaped = int(Path(f"/proc/{kept.pid}/task/{kept.pid}/children").read_text().split()[-1])
        agent.exit(0)
        assert await kept.ended() == 1
        assert gone(pid, escaped)
        assert "killing what is left" in kept.output


async def test_exit_2_before_anything_runs_is_final(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    agent.exit(2)
    assert await kept.ended() == 2


async def test_exit_2_while_children_serve_is_a_crash_like_any_kept(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    pid = await start(agent, "x", SLEEP)
    agent.exit(2)
    agent = await kept.agent()
    assert agent.client.children["x"].pid == pid
    assert not gone(pid)


@pytest.mark.parametrize(("announced", "code", "expected"), [(0, 70, 70), (70, 0, 70), (0, 0, 0), (0, 1, 1)])
async def test_an_agent_that_says_it_ends_decides_the_exit_code(
    kept: KeeperProcess, announced: int, code: int, expected: int
) -> None:
    agent = await kept.agent()
    pid = await start(agent, "x", SLEEP)
    await agent.client.stopping(20.0, announced)
    agent.exit(code)
    assert await kept.ended() == expected
    assert gone(pid)


async def test_term_waits_for_the_agent_to_end_its_work(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    pid = await start(agent, "x", SLEEP)
    os.kill(kept.pid, signal.SIGTERM)
    assert await agent.told_signal() == signal.SIGTERM
    await agent.client.stopping(20.0)
    assert await agent.client.signal("x", signal.SIGTERM)
    assert (await agent.client.wait("x")).signal == signal.SIGTERM
    agent.exit(0)
    assert await kept.ended() == 0
    assert gone(pid)


async def test_term_twice_ends_everything_hard(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    pid = await start(agent, "x", IGNORE_TERM)
    os.kill(kept.pid, signal.SIGTERM)
    assert await agent.told_signal() == signal.SIGTERM
    os.kill(kept.pid, signal.SIGTERM)
    assert await kept.ended() == 1
    assert gone(pid, agent.pid)


async def test_an_agent_past_its_announced_deadline_is_ended_hard(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    pid = await start(agent, "x", IGNORE_TERM)
    await agent.client.stopping(0.05)
    assert await kept.ended() == 1
    assert gone(pid, agent.pid)


async def test_term_after_the_agents_own_word_is_the_first_not_the_second(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    await agent.client.stopping(20.0)
    os.kill(kept.pid, signal.SIGTERM)
    assert await agent.told_signal() == signal.SIGTERM
    agent.exit(0)
    assert await kept.ended() == 0


async def test_without_an_agent_term_ends_the_children_in_order() -> None:
    async with keeper(BACKOFF=(60.0, 60.0)) as kept:
        agent = await kept.agent()
        pid = await start(agent, "x", SLEEP)
        agent.kill()
        await until(lambda: "again in 60 s" in kept.output)
        os.kill(kept.pid, signal.SIGTERM)
        assert await kept.ended() == 0
        assert gone(pid)


async def test_an_agent_that_cannot_be_started_is_named() -> None:
    async with keeper(command=["/no/such/agent"], BACKOFF=(60.0, 60.0)) as kept:
        await until(lambda: "the agent ended with exit code 127; again in 60 s" in kept.output)
        assert (
            "the agent cannot be started: [Errno 2] No such file or directory: '/no/such/agent'"
            in kept.output
        )
        os.kill(kept.pid, signal.SIGTERM)
        assert await kept.ended() == 0


async def test_an_agent_that_keeps_dying_is_started_less_and_less_often() -> None:
    async with keeper(command=["false"], BACKOFF=(0.01, 0.04)) as kept:
        await until(lambda: kept.output.count("again") >= 4)
        delays = [line.rpartition("again in ")[2] for line in kept.output.splitlines()[:4]]
        assert delays == ["0.01 s", "0.02 s", "0.04 s", "0.04 s"]


async def test_the_agent_dies_with_the_keeper_and_knows(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    pids = [await start(agent, f"x{n}", IGNORE_TERM) for n in range(3)]
    waiting = asyncio.ensure_future(agent.client.wait("x0"))
    os.kill(kept.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await agent.client.lost.wait()
        with pytest.raises(KeeperLost):
            await waiting
    with pytest.raises(KeeperLost):
        await agent.client.note("a", "b")
    assert await agent.told_signal() == signal.SIGTERM
    await until(lambda: gone(*pids))


async def test_an_agent_that_talks_nonsense_is_replaced(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    sock = agent.client._connection._sock
    sock.send(HEADER.pack(1 << 31))
    successor = await kept.agent()
    assert successor.pid != agent.pid
    assert gone(agent.pid)
    await successor.client.note("a", "b")


async def test_an_agent_that_never_reads_is_replaced(kept: KeeperProcess) -> None:
    agent = await kept.agent()
    sock = agent.client._connection._sock
    loop = asyncio.get_running_loop()
    loop.remove_reader(sock.fileno())
    frame = b'{"id":1,"do":"hello"}'
    note = b'{"id":1,"do":"note","key":"k","value":"' + b"x" * 400_000 + b'"}'
    await loop.sock_sendall(sock, HEADER.pack(len(note)) + note)
    sending = asyncio.ensure_future(loop.sock_sendall(sock, (HEADER.pack(len(frame)) + frame) * 100))
    successor = await kept.agent()
    assert gone(agent.pid)
    await asyncio.wait([sending])
    sending.exception()
    assert set(successor.client.notes) == {"k"}


async def test_an_agent_that_closes_its_socket_and_stays_is_replaced() -> None:
    code = "import os, signal; os.close(3); print('closed', flush=True); signal.pause()"
    async with keeper(command=[sys.executable, "-I", "-S", "-c", code], MUTE_DEADLINE=0.05) as kept:
        await until(lambda: kept.output.count("closed") >= 2)
        assert "the agent ended with signal 9" in kept.output
