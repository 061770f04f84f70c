"""Commands that somebody is attached to, through a real keeper."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agent.domain.control import Ends
from agent.process.attached import CHUNK, run_attached
from agent.process.command import CommandResult
from agent.process.context import ChildContext
from agent.process.users import User
from tests.kit.keepers import Agent, KeeperProcess, until

PIPE = 64 << 10  # bytes that a pipe holds, pipe(7)


async def nothing() -> None:
    pass


async def run(
    agent: Agent,
    code: str,
    give: Callable[[str, bytes], Awaitable[None]],
    given: AsyncIterator[bytes] | None = None,
) -> CommandResult:
    context = ChildContext("web", Path("/"), {"PATH": os.defpath}, User("me"))
    argv = [sys.executable, "-I", "-S", "-u", "-c", code]
    ends = Ends(nothing, give, given)
    return await run_attached(agent.client, name="exec", argv=argv, context=context, timeout=30.0, ends=ends)


class Heard:
    """Takes what is said."""

    def __init__(self) -> None:
        self.out = b""
        self.err = b""

    async def __call__(self, kind: str, data: bytes) -> None:
        setattr(self, kind, getattr(self, kind) + data)


def descriptors(kept: KeeperProcess) -> int:
    return len(os.listdir(f"/proc/{kept.pid}/fd"))


async def test_what_it_says_is_passed_on_to_its_last_byte_and_kept_nowhere(
    kept: KeeperProcess, agent: Agent
) -> None:
    before, heard = descriptors(kept), Heard()
    result = await run(agent, f"import os; os.write(1, b'x' * {PIPE}); os.write(2, b'y'); os._exit(3)", heard)
    assert (result.code, len(heard.out), heard.err) == (3, PIPE, b"y")
    assert result.log == ()
    assert "xxx" not in kept.output
    assert agent.client.children == {}
    await until(lambda: descriptors(kept) == before)


FILL = """
import os, signal
os.set_blocking(1, False)
written = 0
try:
    while True: written += os.write(1, b"x" * 4096)
except BlockingIOError:
    os.write(2, b"%d" % written)
signal.pause()
"""


async def test_who_does_not_read_holds_it_up_and_costs_no_memory(agent: Agent) -> None:
    told = asyncio.get_running_loop().create_future()

    async def reluctant(kind: str, data: bytes) -> None:
        if kind == "err":
            told.set_result(int(data))
        await asyncio.Event().wait()

    work = asyncio.ensure_future(run(agent, FILL, reluctant))
    assert await asyncio.wait_for(told, 30.0) <= PIPE + CHUNK
    (child,) = agent.client.children.values()
    work.cancel()
    await asyncio.wait([work])
    assert work.cancelled()
    assert agent.client.children == {}
    await until(lambda: not os.path.exists(f"/proc/{child.pid}"))


GOES = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    os.kill(os.getppid(), signal.SIGUSR1)
while True: signal.pause()
"""


async def test_what_it_left_behind_in_another_session_ends_with_it(agent: Agent) -> None:
    heard = Heard()
    result = await run(agent, GOES, heard)
    assert result.code == 0
    assert not os.path.exists(f"/proc/{int(heard.out)}")


async def test_when_nobody_listens_any_more_it_ends(agent: Agent) -> None:
    async def deaf(_kind: str, _data: bytes) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionError):
        await run(agent, "import signal; print('x'); signal.pause()", deaf)
    assert agent.client.children == {}


async def test_input_that_is_cut_short_is_no_end_of_it(agent: Agent) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half of it"
        raise ConnectionResetError

    heard = Heard()
    with pytest.raises(ConnectionError):
        await run(agent, "import sys; print('all: ' + sys.stdin.read())", heard, broken())
    assert heard.out == b""


async def test_a_program_that_is_not_there_leaves_nothing(kept: KeeperProcess, agent: Agent) -> None:
    before = descriptors(kept)
    context = ChildContext("web", Path("/"), {"PATH": os.defpath}, User("me"))
    with pytest.raises(Exception, match="no such program"):
        await run_attached(
            agent.client, name="exec", argv=["/not/there"], context=context, timeout=5.0,
            ends=Ends(nothing, Heard()),
        )  # fmt: skip
    assert agent.client.children == {}
    await until(lambda: descriptors(kept) == before)
