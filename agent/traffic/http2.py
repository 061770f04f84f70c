"""Tells HTTP/2 clients to come back later: the least of RFC 9113 that is a whole and correct answer.

For clients that speak HTTP/2 without TLS and know it beforehand (section 3.3), which most gRPC clients
are. Every request that has come when the first one is complete is answered: gRPC with UNAVAILABLE
(a Trailers-Only response of the gRPC HTTP/2 protocol), everything else with an empty 503. Then GOAWAY
names the last of them, so that the client sends the others again on a connection of their own.

No header is decoded. What matters is whether a header block holds the text `application/grpc`, as it is
or in Huffman's code, whose 88 bits for it are whole bytes; a connection that has once asked so is a gRPC
channel, whose later blocks may refer to that entry by its number. The answers use literals only (RFC 7541,
section 6.2.2), so there is no state of compression to keep.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BLOCK_MAX = 16 << 10  # bytes of one request's headers
FRAME_MAX = 16 << 10  # SETTINGS_MAX_FRAME_SIZE, as long as nobody changes it

_FRAME = struct.Struct("!BHBBI")  # length in 1 + 2 bytes, type, flags, stream
_STREAM = 0x7FFFFFFF
_GRPC = (b"application/grpc", bytes.fromhex("1d75d0620d263d4c4d6564"))
_UNAVAILABLE = "14"  # of the gRPC status codes


class Kind(IntEnum):
    """Frame types (section 6)."""

    HEADERS = 1
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    CONTINUATION = 9


class Flag(IntFlag):
    """Frame flags; ACK is END_STREAM's bit on SETTINGS and PING."""

    END_STREAM = ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Error(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FRAME_SIZE_ERROR = 6
    ENHANCE_YOUR_CALM = 11


class NotHttp2(Exception):
    """What a client sent is no beginning of HTTP/2."""


class _Broken(Exception):
    """The client breaks the protocol; the code is the first argument."""


def begins(data: bytes) -> bool:
    """Whether `data` may be the beginning of an HTTP/2 connection."""
    return data[: len(PREFACE)] == PREFACE[: len(data)]


class Refusal:
    """One connection, without its input and output.

    `answered` counts requests that were refused; once `done`, nothing else is to be received.
    """

    def __init__(self, retry_after: int) -> None:
        self.answered = 0
        self.done = False
        self._retry_after = str(retry_after)
        self._buffer = bytearray()
        self._begun = False  # the preface has come
        self._settled = False  # the client's first SETTINGS have come
        self._last = 0  # the newest stream
        self._grpc = False
        self._open: tuple[int, bytearray] | None = None  # a block that goes on: stream, bytes

    def receive(self, data: bytes) -> bytes:
        """What to send after having received `data`. Raises NotHttp2."""
        self._buffer += data
        out = bytearray()
        if not self._begun:
            if not begins(bytes(self._buffer[: len(PREFACE)])):
                raise NotHttp2
            if len(self._buffer) < len(PREFACE):
                return b""
            del self._buffer[: len(PREFACE)]
            self._begun = True
            out += frame(Kind.SETTINGS, 0, 0, b"")
        try:
            while (found := self._next()) is not None:
                out += self._handle(*found)
        except _Broken as broken:
            out += self._goodbye(broken.args[0])
        else:
            if self.answered and self._open is None:
                out += self._goodbye(Error.NO_ERROR)
        return bytes(out)

    def _next(self) -> tuple[int, int, int, bytes] | None:
        """The next whole frame: type, flags, stream, payload. Raises _Broken."""
        if len(self._buffer) < _FRAME.size:
            return None
        high, low, kind, flags, stream = _FRAME.unpack_from(self._buffer)
        length = high << 16 | low
        if length > FRAME_MAX:
            raise _Broken(Error.FRAME_SIZE_ERROR)
        end = _FRAME.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_FRAME.size : end])
        del self._buffer[:end]
        return kind, flags, stream & _STREAM, payload

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        """What to send after one frame. Raises _Broken."""
        if not self._settled and (kind != Kind.SETTINGS or flags & Flag.ACK):
            raise _Broken(Error.PROTOCOL_ERROR)  # section 3.4
        if (self._open is None) == (kind == Kind.CONTINUATION):
            raise _Broken(Error.PROTOCOL_ERROR)  # nothing may come between the parts of a block
        if kind == Kind.SETTINGS:
            return self._settings(flags, stream, payload)
        if kind == Kind.PING:
            if stream or len(payload) != 8:
                raise _Broken(Error.PROTOCOL_ERROR if stream else Error.FRAME_SIZE_ERROR)
            return b"" if flags & Flag.ACK else frame(Kind.PING, Flag.ACK, 0, payload)
        if kind == Kind.PUSH_PROMISE:
            raise _Broken(Error.PROTOCOL_ERROR)
        if kind == Kind.HEADERS:
            if not stream % 2:
                raise _Broken(Error.PROTOCOL_ERROR)
            return self._block(stream, bytearray(), _fragment(flags, payload), flags)
        if self._open is not None:
            begun, block = self._open
            if stream != begun:
                raise _Broken(Error.PROTOCOL_ERROR)
            return self._block(stream, block, payload, flags)
        return b""  # bodies, priorities, windows, and what is to be ignored (section 4.1)

    def _settings(self, flags: int, stream: int, payload: bytes) -> bytes:
        if stream:
            raise _Broken(Error.PROTOCOL_ERROR)
        if len(payload) % 6 or (flags & Flag.ACK and payload):
            raise _Broken(Error.FRAME_SIZE_ERROR)
        self._settled = True
        return b"" if flags & Flag.ACK else frame(Kind.SETTINGS, Flag.ACK, 0, b"")

    def _block(self, stream: int, block: bytearray, fragment: bytes, flags: int) -> bytes:
        """A part of a header block; `flags` are those of its frame."""
        block += fragment
        if len(block) > BLOCK_MAX:
            raise _Broken(Error.ENHANCE_YOUR_CALM)
        if not flags & Flag.END_HEADERS:
            self._open = (stream, block)
            return b""
        self._open = None
        if stream <= self._last:
            return b""  # trailers of a request that has its answer
        self._last = stream
        self.answered += 1
        self._grpc = self._grpc or any(name in block for name in _GRPC)
        # Nothing asks for the end of a body that still comes: curl before 8 takes RST_STREAM for a failure.
        return frame(Kind.HEADERS, Flag.END_STREAM | Flag.END_HEADERS, stream, self._headers())

    def _headers(self) -> bytes:
        if self._grpc:
            message = f"this service is being updated, try again in {self._retry_after} s"
            fields = {
                ":status": "200", "content-type": "application/grpc", "grpc-status": _UNAVAILABLE,
                "grpc-message": message,
            }  # fmt: skip
        else:
            fields = {":status": "503", "retry-after": self._retry_after, "cache-control": "no-store"}
        return b"".join(_literal(name, value) for name, value in fields.items())

    def _goodbye(self, error: Error) -> bytes:
        self.done = True
        return frame(Kind.GOAWAY, 0, 0, struct.pack("!II", self._last, error))


def frame(kind: Kind, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame (section 4.1)."""
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _fragment(flags: int, payload: bytes) -> bytes:
    """The part of a header block in a HEADERS frame (section 6.2). Raises _Broken."""
    start, end = 0, len(payload)
    if flags & Flag.PADDED:
        start, end = 1, end - (payload[0] if payload else 0)
    if flags & Flag.PRIORITY:
        start += 5
    if start > end:
        raise _Broken(Error.PROTOCOL_ERROR)
    return payload[start:end]


def _literal(name: str, value: str) -> bytes:
    """A literal header field without indexing, with a new name; both shorter than 127 bytes."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode("ascii") for text in (name, value))
