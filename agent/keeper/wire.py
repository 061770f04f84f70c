"""How frames cross the socket pair: the codec both ends of the keeper's protocol share.

Apart from `protocol` because the keeper imports this file and not the other: `dataclasses` and
`typing` would cost it 2 MiB of memory for as long as it lives.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

HEADER = struct.Struct(">I")
FRAME_MAX = 4 << 20
MAKES_WAY = 3  # exit code of an agent that lets the next one take over
DESCRIPTORS_MAX = 160  # of one message: a whole group of slots (the kernel takes up to 253)
KEEPER_FD_VARIABLE = "EMPTYBOX_KEEPER_FD"
VERSION = 3  # told by `hello`: a newer agent may meet an older keeper


class ProtocolError(Exception):
    """The other side sent something that is not a frame of this protocol."""


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
            try:
                message = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise ProtocolError(f"a frame is not JSON: {error}") from error
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


class Outbox:
    """Frames on their way out of a non-blocking socket, in order, each with its descriptors."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames: deque[tuple[bytes, list[int]]] = deque()
        self.size = 0  # bytes still waiting

    def put(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Add a frame, with duplicates of the descriptors. Raises ProtocolError, OSError."""
        data = encode(message)
        self._frames.append((data, [os.dup(fd) for fd in descriptors]))
        self.size += len(data)

    def flush(self) -> bool:
        """Send what fits; whether all has left. Raises OSError when the other side is gone."""
        while self._frames:
            data, descriptors = self._frames[0]
            try:
                sent = send(self._sock, data, descriptors)
            except BlockingIOError:
                return False
            self.size -= sent
            self._frames[0] = (data[sent:], [])
            _close_all(descriptors)
            if sent == len(data):
                self._frames.popleft()
        return True

    def clear(self) -> None:
        """Give up what is waiting."""
        for _, descriptors in self._frames:
            _close_all(descriptors)
        self._frames.clear()
        self.size = 0


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)
