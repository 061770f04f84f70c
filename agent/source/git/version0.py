"""Git's first protocol, gitprotocol-pack(5), without input or output: for servers that refuse version 2.

The advertisement names every ref, so looking a ref up means asking for the advertisement. The answer to
a fetch with `done`, read by `FetchReader`:

```
 SHALLOW ──"shallow …" lines, flush──► ACKS     only when a depth was asked for
 ACKS ─────"NAK" or "ACK …"──────────► PACK
 PACK ─────sideband packets, flush───► DONE
```
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from enum import Enum, auto

from agent.kit.text import printable
from agent.source.git.pktline import Garbled, Mark, Packet, encode
from agent.source.git.protocol import (
    AGENT,
    ID_DIGITS,
    SHALLOW_MAX,
    Capabilities,
    Ref,
    Unsupported,
    is_object_id,
    sideband,
    text_of,
)

NEEDED = ("side-band-64k", "ofs-delta")
_FIRST = re.compile(rb"[0-9a-f]{40,64} [^\0]*\0")
_NOTHING = "capabilities^{}"  # what stands for the refs of an empty repository


def is_spoken(packets: Iterable[Packet]) -> bool:
    """Whether an advertisement is of this protocol; a mere flush is that of an empty repository."""
    lines = [packet for packet in packets if isinstance(packet, bytes)]
    first = next((line for line in lines if not line.startswith((b"# service=", b"version 1"))), None)
    return _FIRST.match(first) is not None if first is not None else not lines


def read_advertisement(packets: Iterable[Packet]) -> tuple[Capabilities, dict[str, Ref]]:
    """What the server can do, and all its refs. Raises Garbled, Unsupported, RemoteError."""
    given: list[str] = []
    found: dict[str, str] = {}
    for packet in packets:
        if isinstance(packet, Mark):
            continue
        line, _, words = text_of(packet).partition("\0")
        given = given or words.split()
        if line.startswith(("# service=", "version 1", "shallow ")):
            continue
        oid, _, name = line.partition(" ")
        found[name] = oid
    object_format = next((w.partition("=")[2] for w in given if w.startswith("object-format=")), "sha1")
    if object_format not in ID_DIGITS:
        raise Unsupported(f"its object format is {printable(object_format, 40)}")
    missing = [word for word in NEEDED if word not in given]
    if missing and found:
        raise Unsupported(f"it does not offer {' and '.join(missing)}")
    for oid in found.values():
        if not is_object_id(oid) or len(oid) != ID_DIGITS[object_format]:
            raise Garbled("the advertisement holds a line without an object id")
    capabilities = Capabilities(
        object_format, frozenset(given), takes_agent=any(w.startswith("agent=") for w in given),
        takes_format=any(w.startswith("object-format=") for w in given), version=0,
    )  # fmt: skip
    refs = {
        name: Ref(name, oid, found.get(f"{name}^{{}}", ""))
        for name, oid in found.items()
        if not name.endswith("^{}") and name != _NOTHING
    }
    return capabilities, refs


def fetch_request(capabilities: Capabilities, want: str, *, depth: int, trees: bool = True) -> bytes:
    """Ask for one commit, as `protocol.fetch_request` does."""
    words = [b"side-band-64k", b"ofs-delta", b"no-progress"]
    if capabilities.takes_agent:
        words.append(AGENT)
    if capabilities.takes_format:
        words.append(b"object-format=" + capabilities.object_format.encode())
    lean = not trees and "filter" in capabilities.fetch
    if lean:
        words.append(b"filter")
    packets: list[Packet] = [b"want " + want.encode() + b" " + b" ".join(words) + b"\n"]
    if "shallow" in capabilities.fetch:
        packets.append(b"deepen %d\n" % depth)
    if lean:
        packets.append(b"filter tree:0\n")
    return encode([*packets, Mark.FLUSH, b"done\n"])


class _At(Enum):
    SHALLOW = auto()
    ACKS = auto()
    PACK = auto()
    DONE = auto()


class FetchReader:
    """The answer to a fetch: as `protocol.FetchReader`."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.shallow: set[str] = set()
        self._at = _At.SHALLOW if "shallow" in capabilities.fetch else _At.ACKS

    @property
    def done(self) -> bool:
        """Whether the response is whole."""
        return self._at is _At.DONE

    def feed(self, packet: Packet) -> bytes:
        """One packet of it; returns the pack bytes in it, often none. Raises Garbled, RemoteError."""
        if self._at is _At.PACK and isinstance(packet, bytes):
            return sideband(packet)
        word = packet if isinstance(packet, Mark) else text_of(packet)
        if self._at is _At.SHALLOW and isinstance(word, str) and word.startswith(("shallow ", "unshallow ")):
            self._shallow(word)
        elif self._at is _At.SHALLOW and word is Mark.FLUSH:
            self._at = _At.ACKS
        elif self._at is _At.ACKS and isinstance(word, str) and (word == "NAK" or word.startswith("ACK ")):
            self._at = _At.PACK
        elif self._at is _At.PACK and word is Mark.FLUSH:
            self._at = _At.DONE
        else:
            what = word.name.lower() if isinstance(word, Mark) else repr(printable(word, 40))
            raise Garbled(f"the answer to fetch holds {what} where it does not belong")
        return b""

    def _shallow(self, line: str) -> None:
        if line.startswith("shallow "):
            if len(self.shallow) >= SHALLOW_MAX:
                raise Garbled("the answer to fetch names too many shallow commits")
            self.shallow.add(line.removeprefix("shallow "))


def pick(refs: dict[str, Ref], names: Collection[str]) -> dict[str, Ref]:
    """Of all refs, those asked for."""
    return {name: refs[name] for name in names if name in refs}
