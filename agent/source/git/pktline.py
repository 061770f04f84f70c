"""pkt-line framing, gitprotocol-common(5): four hexadecimal digits of length, then the payload.

The length counts its own four digits; 0000, 0001 and 0002 are marks without payload. Pure bytes in,
packets out: reading and deadlines belong to the transports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import TypeAlias

LENGTH_MAX = 65520  # of a packet with its four digits
_LENGTH = re.compile(rb"[0-9a-fA-F]{4}")


class Garbled(ValueError):
    """The other side sent what the protocol does not allow; the text says what."""


class Mark(Enum):
    """The packets without payload."""

    FLUSH = b"0000"  # a message ends
    DELIMITER = b"0001"  # a section ends
    RESPONSE_END = b"0002"  # a response ends, on connections without ends of their own


Packet: TypeAlias = bytes | Mark
_MARKS = {0: Mark.FLUSH, 1: Mark.DELIMITER, 2: Mark.RESPONSE_END}


def encode(packets: Iterable[Packet]) -> bytes:
    """Packets as bytes. Raises ValueError when a payload is too long."""
    parts = []
    for packet in packets:
        if isinstance(packet, Mark):
            parts.append(packet.value)
            continue
        if len(packet) + 4 > LENGTH_MAX:
            raise ValueError(f"a pkt-line holds at most {LENGTH_MAX - 4} bytes, not {len(packet)}")
        parts.append(b"%04x" % (len(packet) + 4) + packet)
    return b"".join(parts)


class Decoder:
    """Bytes in, whole packets out, in order. Holds less than one packet back."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def idle(self) -> bool:
        """Whether nothing is held back: the stream may end here."""
        return not self._rest

    def feed(self, data: bytes) -> list[Packet]:
        """Add what was received; returns the packets completed by it. Raises Garbled."""
        if self._rest:
            data = self._rest + data
        packets: list[Packet] = []
        at, end = 0, len(data)
        while end - at >= 4:
            digits = data[at : at + 4]
            if not _LENGTH.fullmatch(digits):
                raise Garbled(f"a pkt-line begins with {digits!r} instead of its length")
            length = int(digits, 16)
            if length < 4:
                if length not in _MARKS:
                    raise Garbled("a pkt-line has the length 3")
                packets.append(_MARKS[length])
                at += 4
                continue
            if length > LENGTH_MAX:
                raise Garbled(f"a pkt-line of {length} bytes exceeds {LENGTH_MAX}")
            if at + length > end:
                break
            packets.append(data[at + 4 : at + length])
            at += length
        self._rest = data[at:]
        return packets
