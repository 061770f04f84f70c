"""A real keeper in a process of its own, with the test in the agent's place.

The keeper starts, as its agent, a small program that lends the test its end of the socket pair (by
SCM_RIGHTS over a Unix socket), reports the signals it gets, and exits as told. So the test speaks to
the keeper through a real `KeeperClient`, while there is a real agent process that can be killed.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from agent.keeper.client import KeeperClient
from agent.keeper.protocol import ChildRequest

DEADLINE = 20.0  # seconds for anything in a test; nothing is asserted about time

LENDER = """
import array, os, signal, socket, sys
control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
def tell(number, _):
    try:
        control.sendall(b"signal %d\\n" % number)
    except BrokenPipeError:
        os._exit(0)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, tell)
keeper = int(os.environ["EMPTYBOX_KEEPER_FD"])
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [keeper]).tobytes())]
control.sendmsg([b"pid %d\\n" % os.getpid()], rights)
os.close(keeper)
try:
    code = control.recv(64)
except ConnectionResetError:
    code = b""
os._exit(int(code or 0))
"""

RUN = """
import json, sys
from agent.keeper import loop, main, vigil
for name, value in json.loads(sys.argv[1]).items():
    setattr(loop if hasattr(loop, name) else vigil, name, value)
sys.exit(main.main([], sys.argv[2:]))
"""


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until something that has no event of its own is true."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what


def offspring(pid: int) -> list[str]:
    """Pids of a keeper's children, without the scribe, which is a copy of it."""
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has ended
            if Path(f"/proc/{child}/cmdline").read_bytes() != own:
                found.append(child)
    return found


async def said(client: KeeperClient, child: str, text: str) -> None:
    """Wait until a child has printed a line."""
    async with asyncio.timeout(DEADLINE):
        while text not in await client.tail(child):
            await asyncio.sleep(0.005)


def request(child: str, argv: Sequence[str], **more: object) -> ChildRequest:
    """A request with the least a program needs."""
    values = {"environment": {"PATH": os.defpath}, "directory": "/", **more}
    return ChildRequest(child=child, argv=list(argv), **values)  # type: ignore[arg-type]


def python(child: str, code: str, *arguments: str, **more: object) -> ChildRequest:
    """A request for a Python program given as text."""
    return request(child, [sys.executable, "-I", "-S", "-u", "-c", code, *arguments], **more)


class Agent:
    """One life of the agent process, and the client on its socket."""

    def __init__(self, pid: int, client: KeeperClient, control: socket.socket) -> None:
        self.pid = pid
        self.client = client
        self._control = control

    async def told_signal(self) -> int:
        """The next signal the agent process was sent."""
        async with asyncio.timeout(DEADLINE):
            line = await asyncio.get_running_loop().sock_recv(self._control, 64)
        return int(line.split()[1])

    def exit(self, code: int) -> None:
        """Make the agent process end with this exit code."""
        self._control.send(b"%d" % code)

    def kill(self) -> None:
        """kill -9 of the agent process."""
        os.kill(self.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        """Give up this side's duplicates; the agent process ends with code 0."""
        await self.client.aclose()
        self._control.close()


class KeeperProcess:
    """A running keeper. `output` is what it printed, children's lines included."""

    def __init__(self, process: asyncio.subprocess.Process, listener: socket.socket, output: Path) -> None:
        self.process = process
        self._listener = listener
        self._output = output
        self._agents: list[Agent] = []

    @property
    def pid(self) -> int:
        """The keeper's pid (with a wrapper around it: the wrapper's)."""
        return self.process.pid

    @property
    def output(self) -> str:
        """What the keeper printed so far."""
        return self._output.read_text(errors="replace")

    async def agent(self) -> Agent:
        """The next life of the agent, connected."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            control, _ = await loop.sock_accept(self._listener)
            readable = asyncio.Event()
            loop.add_reader(control, readable.set)
            await readable.wait()
            loop.remove_reader(control)
            line, ancillary, _, _ = control.recvmsg(64, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            lent = array.array("i", ancillary[0][2])[0]
            agent = Agent(int(line.split()[1]), await KeeperClient.connect(lent), control)
        self._agents.append(agent)
        return agent

    async def ended(self) -> int:
        """Wait for the keeper's end; its exit code."""
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()

    async def aclose(self) -> None:
        """End the keeper in order, and whatever is left by force."""
        for agent in self._agents:
            await agent.aclose()
        self._listener.close()
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                async with asyncio.timeout(DEADLINE):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
                raise


@contextlib.asynccontextmanager
async def keeper(
    *,
    wrapper: Sequence[str] = (),
    stdout: int | None = None,
    command: Sequence[str] | None = None,
    **limits: object,
) -> AsyncIterator[KeeperProcess]:
    """Run a keeper with the lending agent (or `command`) until the block is left.

    `limits` are constants of `agent.keeper.loop` or `vigil` to be other than they are (GRACE=0.1).
    """
    with tempfile.TemporaryDirectory(prefix="keeper-") as directory:
        path = f"{directory}/agent.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        os.chmod(directory, 0o755)  # for keepers of other users
        os.chmod(path, 0o777)
        listener.listen()
        listener.setblocking(False)
        printed = Path(directory) / "output"
        printed.touch()
        agent = command or [sys.executable, "-I", "-S", "-c", LENDER, path]
        with printed.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *wrapper, sys.executable, "-P", "-c", RUN, json.dumps(limits), *agent,
                stdin=asyncio.subprocess.DEVNULL, stdout=file if stdout is None else stdout,
            )  # fmt: skip
        running = KeeperProcess(process, listener, printed)
        try:
            yield running
        finally:
            await running.aclose()


@pytest.fixture
async def kept() -> AsyncIterator[KeeperProcess]:
    """A running keeper whose agent nobody has taken the place of yet."""
    async with keeper() as running:
        yield running


@pytest.fixture
async def agent(kept: KeeperProcess) -> Agent:
    """The test as the keeper's agent."""
    return await kept.agent()
