"""The keeper as the agent sees it: children, slots and notes, on asyncio.

What comes for a request that nobody waits for any more is undone: a child that was started for a
cancelled `spawn` is killed and forgotten, descriptors are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any

from agent.keeper.connection import Connection, KeeperLost, Refused, nothing
from agent.keeper.holder import find_holder
from agent.keeper.protocol import VERSION, ChildRecord, ChildRequest, ProtocolError, SlotsRecord

__all__ = ["KeeperClient", "KeeperLost", "PortTaken", "SpawnFailed"]


class SpawnFailed(Exception):
    """A child could not be started.

    `stage` is the step that failed (pipe, fork, setup, adopt, setgroups, setgid, setuid, chdir, exec,
    interpreter), or "" when the request itself was refused; `errno` says how.
    """

    def __init__(self, stage: str, code: int, text: str) -> None:
        super().__init__(text)
        self.stage = stage
        self.errno = code
        self.text = text


class PortTaken(OSError):
    """Another process listens on the port; `pid` and `name` say which, where that could be found."""

    def __init__(self, address: str, port: int, pid: int | None = None, name: str = "") -> None:
        holder = f" by {name or 'a process'} (pid {pid})" if pid else ""
        super().__init__(errno.EADDRINUSE, f"port {port} on {address} is taken{holder}")
        self.address = address
        self.port = port
        self.pid = pid
        self.name = name


class KeeperClient:
    """One agent's end of the socket pair. Make it by `connect`, end it by `aclose`.

    `children`, `notes` and `groups` are what the keeper holds, kept current. `lost` is set when the
    keeper is gone; every request then raises KeeperLost.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.children: dict[str, ChildRecord] = {}
        self.notes: dict[str, str] = {}
        self.groups: dict[str, SlotsRecord] = {}
        self.keeper_pid = 0
        self.deaths: dict[str, Any] = {}  # of agents before this one: see `agent.keeper.link`
        self.gives_stdio = False  # whether this keeper can give a child descriptors 0, 1 and 2 of ours
        self.lost = asyncio.Event()
        self._connection = Connection(sock, self._told, self._ended)
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._discarded: set[str] = set()

    @classmethod
    async def connect(cls, fd: int) -> KeeperClient:
        """Take over the descriptor named by EMPTYBOX_KEEPER_FD and learn what the keeper holds.

        Raises KeeperLost, TimeoutError, ProtocolError (a keeper of another version), OSError.
        """
        os.set_inheritable(fd, False)
        client = cls(socket.socket(fileno=fd))
        try:
            held = (await client._connection.ask("hello", applied=client._greeted)).ok
            if held["version"] != VERSION:
                raise ProtocolError(f"the keeper speaks version {held['version']}, this agent {VERSION}")
        except BaseException:
            await client.aclose()
            raise
        return client

    def _greeted(self, held: dict[str, Any]) -> None:
        """Learn what the keeper holds, before what it tells next: that may be the end of one of these."""
        if held["version"] != VERSION:
            return
        self.keeper_pid = held["pid"]
        self.gives_stdio = bool(held.get("stdio"))
        self.deaths = held.get("deaths") or {}
        self.children = {c["child"]: ChildRecord(**c) for c in held["children"]}
        self.groups = {g["key"]: SlotsRecord(**g) for g in held["slots"]}
        self.notes = held["notes"]

    async def aclose(self) -> None:
        """Close this end; children, slots and notes stay with the keeper."""
        self._connection.close()
        self._wake_all()

    # -- children ----------------------------------------------------------------------------------

    async def spawn(self, request: ChildRequest, stdio: Sequence[int] = ()) -> ChildRecord:
        """Start a child; returns once its program runs. Cancelled, it leaves no child behind.

        `stdio` become its descriptors 0, 1 and 2: what it says is then not heard by the keeper.
        Raises SpawnFailed, KeeperLost, TimeoutError.
        """
        try:
            answer = await self._connection.ask(
                "spawn",
                {"child": request.as_json()},
                applied=lambda ok: self._started(ok["child"]),
                unwanted=lambda: self._discard(request.child),
                descriptors=stdio,
            )
        except Refused as error:
            raise SpawnFailed(error.stage, error.code, error.text) from None
        return self.children[answer.ok["child"]["child"]]

    async def signal(self, child: str, signum: int, *, group: bool = True) -> bool:
        """Signal a child's process group, or only its leader; whether anybody was there.

        Signal 0 only asks. A group can outlive its leader. Raises LookupError, PermissionError,
        KeeperLost, TimeoutError.
        """
        self._known(child)
        ok = await self._do("signal", {"child": child, "signal": signum, "group": group})
        return bool(ok["delivered"])

    async def wait(self, child: str) -> ChildRecord:
        """Wait for a child's end; returns its record with code or signal. Raises LookupError, KeeperLost."""
        while self._known(child).running:
            await self._change(child)
        return self._known(child)

    async def taken(self, child: str, names: Collection[str]) -> ChildRecord:
        """Wait until a child that is adopted has bound its ports of these names, or has ended.

        Raises LookupError, KeeperLost.
        """
        while (record := self._known(child)).running and not set(names) <= set(record.taken):
            await self._change(child)
        return record

    async def until(self, child: str, holds: Callable[[ChildRecord], bool]) -> ChildRecord:
        """Wait until something holds of a child; asked at each word of it. Raises LookupError, KeeperLost."""
        while not holds(record := self._known(child)):
            await self._change(child)
        return record

    async def _change(self, child: str) -> None:
        """Wait until something is told of a child. Raises KeeperLost."""
        if self._connection.closed:
            raise KeeperLost("the keeper is gone")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(child, set()).add(future)
        try:
            await future
        finally:
            self._waiting.get(child, set()).discard(future)

    async def tail(self, child: str, lines: int = 200) -> list[str]:
        """The last lines of a child's output, oldest first; also after its end, until `forget`.

        Raises LookupError, KeeperLost, TimeoutError.
        """
        self._known(child)
        return list((await self._do("tail", {"child": child, "lines": lines}))["lines"])

    async def forget(self, child: str) -> None:
        """Drop an ended child and its lines; an unknown one is no error.

        Raises OSError (EBUSY) for one that runs, KeeperLost, TimeoutError.
        """

        def gone(_: object) -> None:
            self.children.pop(child, None)
            self._wake(child)

        await self._do("forget", {"child": child}, gone)

    # -- slots and notes ---------------------------------------------------------------------------

    async def open(
        self, key: str, address: str, port: int, count: int, backlog: int = 4096
    ) -> list[socket.socket]:
        """Open `count` listening sockets in one group, or find them open: duplicates, the caller's to close.

        The duplicates share their file status flags with the keeper's and the children's: O_NONBLOCK set
        on one is set on all. Port 0 takes a free one, see `groups`. Raises PortTaken, OSError (EACCES,
        EADDRNOTAVAIL; EEXIST when `key` is held for another address), KeeperLost, TimeoutError.
        """
        wanted = {"key": key, "address": address, "port": port, "count": count, "backlog": backlog}

        def opened(ok: dict[str, Any]) -> None:
            self.groups[key] = SlotsRecord(**ok["slots"])

        try:
            answer = await self._connection.ask("open", wanted, opened)
        except Refused as error:
            if error.code != errno.EADDRINUSE:
                raise OSError(error.code, error.text) from None
            pid, name = await asyncio.to_thread(find_holder, port)
            raise PortTaken(address, port, pid, name) from None
        return [socket.socket(fileno=fd) for fd in answer.descriptors]

    async def close_slots(self, key: str) -> None:
        """Close the keeper's sockets of a group; duplicates live on. Raises KeeperLost, TimeoutError."""
        await self._do("close", {"key": key}, lambda _: self.groups.pop(key, None))

    async def note(self, key: str, value: str | None) -> None:
        """Leave, replace or (None) remove a note. Raises OSError (E2BIG), KeeperLost, TimeoutError."""

        def noted(_: object) -> None:
            if value is None:
                self.notes.pop(key, None)
            else:
                self.notes[key] = value

        await self._do("note", {"key": key, "value": value}, noted)

    async def ready(self) -> None:
        """Say that this agent is up, for the service manager. Raises KeeperLost, TimeoutError."""
        await self._do("ready", {})

    async def stopping(self, deadline: float, code: int = 0) -> None:
        """Say that this agent ends within `deadline` seconds for good, and with which code the keeper shall.

        From then on its end is the end of the keeper and of every child, in order. Past the deadline the
        keeper ends all by itself. Raises KeeperLost, TimeoutError.
        """
        await self._do("stopping", {"deadline": deadline, "code": code})

    # -- underneath --------------------------------------------------------------------------------

    def _known(self, child: str) -> ChildRecord:
        try:
            return self.children[child]
        except KeyError:
            raise LookupError(f"the keeper has no child {child}") from None

    def _started(self, record: dict[str, Any]) -> None:
        self.children[record["child"]] = ChildRecord(**record)

    def _discard(self, child: str) -> None:
        """End a child that nobody waited for."""
        self.children.pop(child, None)
        self._discarded.add(child)
        with contextlib.suppress(KeeperLost):
            self._connection.post({"do": "signal", "child": child, "signal": signal.SIGKILL, "group": True})

    async def _do(
        self, verb: str, arguments: dict[str, Any], applied: Callable[[dict[str, Any]], object] = nothing
    ) -> dict[str, Any]:
        """A request whose refusal is an OSError."""
        try:
            return (await self._connection.ask(verb, arguments, applied)).ok
        except Refused as error:
            raise OSError(error.code, error.text) from None

    def _told(self, event: dict[str, Any]) -> None:
        if event["event"] == "ping":
            self._connection.post({"do": "alive"})
            return
        record = event["child"]
        child = record["child"]
        if child in self._discarded:
            if event["event"] == "exited":
                self._discarded.remove(child)
                self._connection.post({"do": "forget", "child": child})
        elif child in self.children:
            self.children[child] = ChildRecord(**record)
            self._wake(child)

    def _ended(self) -> None:
        self.lost.set()
        self._wake_all()

    def _wake(self, child: str) -> None:
        for future in self._waiting.pop(child, ()):
            if not future.done():
                future.set_result(None)

    def _wake_all(self) -> None:
        for child in list(self._waiting):
            self._wake(child)
