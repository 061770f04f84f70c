"""The one protocol between keeper and agent: frames of JSON with file descriptors beside them.

A stream socket pair. A frame is a 4-byte big-endian length and that many bytes of JSON (one object);
descriptors travel by SCM_RIGHTS with the first byte of their frame (unix(7)). The agent sends requests
`{"id": n, "do": verb, ...}`; the keeper answers `{"id": n, "ok": {...}}` or `{"id": n, "error": {...}}`
and tells events without being asked: `{"event": "exited", ...}`.

| verb | arguments | answer |
|---|---|---|
| hello | | children, slots, notes: all the keeper holds |
| spawn | child: see `ChildRequest` | pid |
| signal | child, signal, group | delivered |
| tail | child, lines | lines |
| forget | child | |
| open | key, address, port, count, backlog | slots (descriptors beside) |
| close | key | |
| note | key, value (null removes) | |
| stopping | deadline (seconds) | |

Notes are opaque to the keeper: the agent leaves itself word of what must live exactly as long as
the children and sockets do (which slot is open, which child serves which pair).
"""

from __future__ import annotations

import array
import json
import socket
import struct
from dataclasses import asdict, dataclass, field
from typing import Any

HEADER = struct.Struct(">I")
FRAME_MAX = 4 << 20
DESCRIPTORS_MAX = 64
KEEPER_FD_VARIABLE = "EMPTYBOX_KEEPER_FD"


class ProtocolError(Exception):
    """The other side sent something that is not a frame of this protocol."""


@dataclass(frozen=True)
class ChildRequest:
    """What to start.

    `environment` is the whole environment: nothing is inherited. `slots` are (key, index, name):
    listening sockets handed over as descriptors 3, 4, ... with LISTEN_FDS, LISTEN_PID and
    LISTEN_FDNAMES set (sd_listen_fds(3)). `prefix` heads each passed-through output line. `note`
    is kept with the child for the agent. uid and gid None mean the keeper's own.
    """

    child: str
    argv: list[str]
    environment: dict[str, str]
    directory: str
    prefix: str = ""
    uid: int | None = None
    gid: int | None = None
    groups: list[int] = field(default_factory=list)
    umask: int = 0o022
    slots: list[tuple[str, int, str]] = field(default_factory=list)
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class ChildRecord:
    """A child as the keeper knows it. code and signal are None while it runs; started is epoch seconds."""

    child: str
    pid: int
    started: float
    note: str
    code: int | None = None
    signal: int | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.code is None and self.signal is None


@dataclass(frozen=True)
class SlotsRecord:
    """A group of listening sockets the keeper holds: one SO_REUSEPORT group on address and port."""

    key: str
    address: str
    port: int
    count: int


def encode(message: dict[str, Any]) -> bytes:
    """One frame. Raises ProtocolError when it would be too large."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > FRAME_MAX:
        raise ProtocolError(f"a frame of {len(body)} bytes exceeds {FRAME_MAX}")
    return HEADER.pack(len(body)) + body


class Decoder:
    """Bytes and descriptors in, whole messages out, in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.descriptors: list[int] = []

    def feed(self, data: bytes, descriptors: list[int]) -> list[dict[str, Any]]:
        """Add what was received; returns the messages completed by it. Raises ProtocolError."""
        self._buffer += data
        self.descriptors += descriptors
        messages = []
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > FRAME_MAX:
                raise ProtocolError(f"a frame of {length} bytes exceeds {FRAME_MAX}")
            if len(self._buffer) < HEADER.size + length:
                break
            body = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            message = json.loads(body)
            if not isinstance(message, dict):
                raise ProtocolError("a frame is not an object")
            messages.append(message)
        return messages

    def take(self, count: int) -> list[int]:
        """The oldest `count` descriptors received; the caller owns them. Raises ProtocolError."""
        if len(self.descriptors) < count:
            raise ProtocolError(f"{count} descriptors announced, {len(self.descriptors)} received")
        taken, self.descriptors = self.descriptors[:count], self.descriptors[count:]
        return taken


def receive(sock: socket.socket, size: int = 1 << 16) -> tuple[bytes, list[int]]:
    """Bytes and descriptors that are waiting; (b"", []) at the end. Raises BlockingIOError, OSError."""
    room = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    data, ancillary, _, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return data, list(descriptors)


def send(sock: socket.socket, data: bytes, descriptors: list[int] | None = None) -> int:
    """Send what fits, descriptors with the first byte; returns the bytes sent. Raises OSError."""
    if not descriptors:
        return sock.send(data)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
    return sock.sendmsg([data], rights)
