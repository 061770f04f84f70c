"""A holder of slots for tests (as the keeper holds them), children on slots, and clients."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.domain.events import Bus, Event, RequestsAnswered
from agent.domain.spec import MaintenanceSpec, PortSpec
from agent.traffic.gate import SlotGate
from agent.traffic.own import OwnGate
from agent.traffic.page import Progress, Render
from agent.traffic.relayed import RelayGate

DEADLINE = 20.0
FD_SERVER = Path(__file__).parents[1] / "kit" / "fd_server.py"


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def group_of(count: int, address: str = "127.0.0.1", port: int = 0) -> list[socket.socket]:
    """Listening sockets in one SO_REUSEPORT group: all bound, then listening in order."""
    with socket.socket() as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind((address, port))
        port = alone.getsockname()[1]  # a port the kernel chose at a socket's own bind is lost by shutdown
    return members(count, address, port)


def members(count: int, address: str, port: int) -> list[socket.socket]:
    """So many listening sockets more in the group of a port."""
    sockets = []
    for _ in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, port))
        sockets.append(sock)
    for sock in sockets:
        sock.listen(4096)
    return sockets


@dataclass
class Holder:
    """Holds slots and notes as the keeper does, in this process."""

    groups: dict[str, list[socket.socket]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    async def open(
        self, key: str, address: str, port: int, count: int, backlog: int = 4096
    ) -> list[socket.socket]:
        if key not in self.groups:
            self.groups[key] = group_of(count, address, port)
        held = self.groups[key]
        held += members(count - len(held), address, held[0].getsockname()[1])
        return [sock.dup() for sock in self.groups[key]]

    async def close_slots(self, key: str) -> None:
        for sock in self.groups.pop(key, []):
            sock.close()

    async def note(self, key: str, value: str | None) -> None:
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value

    def aclose(self) -> None:
        for group in self.groups.values():
            for sock in group:
                sock.close()


@dataclass
class Stage:
    """One port, its holder, and the facts its gates have published."""

    port: int
    holder: Holder
    facts: list[Event]
    bus: Bus
    progress: Progress = field(default_factory=Progress)
    gates: list[SlotGate | OwnGate] = field(default_factory=list)

    @property
    def spec(self) -> PortSpec:
        return PortSpec(name="http", port=self.port, address="127.0.0.1")

    def slot_gate(
        self, *, ports: Sequence[PortSpec] = (), render: Render | None = None, **spec: float
    ) -> SlotGate:
        gate = SlotGate(
            "web", ports or [self.spec], self.holder, self.bus,
            maintenance=MaintenanceSpec(**{"hold": 60.0, **spec}),  # type: ignore[arg-type]
            progress=lambda: self.progress, render=render,
        )  # fmt: skip
        self.gates.append(gate)
        return gate

    def relay_gate(self, *, ports: Sequence[PortSpec] = (), **spec: float) -> RelayGate:
        gate = RelayGate(
            "web", ports or [self.spec], self.holder, self.bus,
            maintenance=MaintenanceSpec(**{"hold": 60.0, **spec}),  # type: ignore[arg-type]
            progress=lambda: self.progress,
        )  # fmt: skip
        self.gates.append(gate)
        return gate

    def own_gate(self, *, bind_deadline: float = DEADLINE, **spec: float) -> OwnGate:
        gate = OwnGate(
            "web", [self.spec], self.holder, self.bus,
            maintenance=MaintenanceSpec(**{"hold": 60.0, **spec}),  # type: ignore[arg-type]
            progress=lambda: self.progress, bind_deadline=bind_deadline,
        )  # fmt: skip
        self.gates.append(gate)
        return gate

    def slot(self, gate: SlotGate, side: int) -> socket.socket:
        """The holder's own socket of a side."""
        key, index, _ = gate.slots(side)[0]
        return self.holder.groups[key][index]


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A free port and a holder; whatever is left of the gates is closed at the end."""
    bus, facts = Bus(), list[Event]()
    bus.subscribe(facts.append)
    made = Stage(free_port(), Holder(), facts, bus)
    try:
        yield made
    finally:
        for gate in made.gates:
            await gate.detach()
        made.holder.aclose()


@contextmanager
def child_on(listener: socket.socket, name: str) -> Iterator[subprocess.Popen[str]]:
    """A server process that has `listener` as descriptor 3 of its own, ready; killed at the end."""
    fd = listener.fileno()
    command = [sys.executable, "-S", "-E", "-P", str(FD_SERVER), name, str(fd)]
    process = subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def terminate(process: subprocess.Popen[str]) -> int:
    """TERM, and the exit code."""
    process.send_signal(signal.SIGTERM)
    return await asyncio.to_thread(process.wait, DEADLINE)


async def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.002)


REQUEST = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"


async def connect(port: int, source: str | None = None) -> socket.socket:
    """A connected client."""
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if source is not None:
            client.bind((source, 0))
        async with asyncio.timeout(DEADLINE):
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    except BaseException:
        client.close()
        raise
    return client


async def read_all(client: socket.socket) -> bytes:
    """Everything until the end of the stream."""
    answer = b""
    async with asyncio.timeout(DEADLINE):
        while data := await asyncio.get_running_loop().sock_recv(client, 65536):
            answer += data
    return answer


async def ask(port: int, request: bytes = REQUEST, source: str | None = None) -> bytes:
    """One request on a connection of its own; the whole answer."""
    with await connect(port, source) as client:
        await asyncio.get_running_loop().sock_sendall(client, request)
        return await read_all(client)


def status_of(answer: bytes) -> int:
    """The status code of an answer."""
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> str:
    """The body of an answer."""
    return answer.partition(b"\r\n\r\n")[2].decode()


async def who(port: int, source: str | None = None) -> str:
    """Name of the server that answers, or the status as text."""
    answer = await ask(port, source=source)
    return body_of(answer).split()[0] if status_of(answer) == 200 else str(status_of(answer))


def is_refused(error: OSError) -> bool:
    """Whether nobody listened."""
    return error.errno == errno.ECONNREFUSED


@contextmanager
def serving(on: Stage, gate: SlotGate, side: int, name: str) -> Iterator[None]:
    """A child on a side."""
    with child_on(on.slot(gate, side), name):
        yield


def answered(on: Stage, how: str) -> int:
    """Requests that were told to be answered in that way."""
    return sum(f.count for f in on.facts if isinstance(f, RequestsAnswered) and f.how == how)
