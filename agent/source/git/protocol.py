"""Git protocol v2, gitprotocol-v2(5), without input or output: requests to bytes, packets to meaning.

Spoken are the capability advertisement, `ls-refs` and `fetch` (with `done`, so without negotiation).
The response of `fetch` is a sequence of sections, read by `FetchReader`:

```
 START ──"shallow-info"──► SHALLOW ──lines…──(delimiter)──► START
   │ ───"acknowledgments"─► ACKS ────lines…──(delimiter)──► START
   └────"packfile"────────► PACK ────sideband packets…──(flush)──► DONE
```
An `ERR` packet may stand anywhere outside the pack, band 3 anywhere inside: both are `RemoteError`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from agent.kit.text import printable
from agent.source.git.pktline import Garbled, Mark, Packet, encode

AGENT = b"agent=emptybox"
ID_DIGITS = {"sha1": 40, "sha256": 64}
_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^/|/$|\.$|^-")
REF_MAX = 1024
SHALLOW_MAX = 100_000  # commits a server may call shallow in one answer


class Unsupported(Exception):
    """The other side is a Git server, but not one we can speak to; the text says why."""


class RemoteError(Exception):
    """The other side refused in its own words, made printable and cut short."""

    def __init__(self, words: bytes) -> None:
        super().__init__(printable(words.decode("utf-8", "replace"), 200))


def is_object_id(text: str) -> bool:
    """Whether this is a full object id (sha1 or sha256) in lower case."""
    return _ID.fullmatch(text) is not None


def is_ref_name(text: str) -> bool:
    """Whether git-check-ref-format(1) could accept this as a ref or a part of one."""
    return 0 < len(text.encode("utf-8", "replace")) <= REF_MAX and not _BAD_IN_REF.search(text)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server advertised: the hash of its ids, what `fetch` can do, the protocol (2 or 0)."""

    object_format: str = "sha1"
    fetch: frozenset[str] = frozenset()
    takes_agent: bool = False
    takes_format: bool = False
    version: int = 2


@dataclass(frozen=True, slots=True)
class Ref:
    """What a name points to: an object, and for an annotated tag the object behind it ("" otherwise)."""

    name: str
    oid: str
    peeled: str = ""

    @property
    def commit(self) -> str:
        """The id behind tags; that it is a commit shows only when it is fetched."""
        return self.peeled or self.oid


def read_advertisement(packets: Iterable[Packet]) -> Capabilities:
    """The capability advertisement. Raises Garbled, Unsupported, RemoteError."""
    lines = [text_of(packet) for packet in packets if not isinstance(packet, Mark)]
    if lines and lines[0].startswith("# service="):  # the head some servers send over HTTP
        del lines[0]
    if not lines:
        raise Garbled("the capability advertisement is empty")
    if lines[0] != "version 2":
        raise Garbled("the capability advertisement does not begin with its version")
    given: dict[str, str] = {}
    for line in lines[1:]:
        key, _, value = line.partition("=")
        given[key] = value
    missing = [command for command in ("ls-refs", "fetch") if command not in given]
    if missing:
        raise Unsupported(f"it does not offer {' and '.join(missing)}")
    object_format = given.get("object-format", "sha1")
    if object_format not in ID_DIGITS:
        raise Unsupported(f"its object format is {printable(object_format, 40)}")
    return Capabilities(
        object_format=object_format,
        fetch=frozenset(given["fetch"].split()),
        takes_agent="agent" in given,
        takes_format="object-format" in given,
    )


def ls_refs_request(capabilities: Capabilities, names: Collection[str]) -> bytes:
    """Ask what these full names point to. The answer may hold longer names too: a prefix is asked for."""
    arguments = [b"peel\n", *(b"ref-prefix " + name.encode() + b"\n" for name in names)]
    return encode(_command(b"ls-refs", capabilities, arguments))


def fetch_request(capabilities: Capabilities, want: str, *, depth: int, trees: bool = True) -> bytes:
    """Ask for one commit with `depth` generations of history, and without trees if it can be had so."""
    arguments = [b"no-progress\n", b"ofs-delta\n"]
    if "shallow" in capabilities.fetch:
        arguments.append(b"deepen %d\n" % depth)
    if not trees and "filter" in capabilities.fetch:
        arguments.append(b"filter tree:0\n")
    arguments += [b"want " + want.encode() + b"\n", b"done\n"]
    return encode(_command(b"fetch", capabilities, arguments))


def _command(name: bytes, capabilities: Capabilities, arguments: Iterable[bytes]) -> Iterator[Packet]:
    yield b"command=" + name + b"\n"
    if capabilities.takes_agent:
        yield AGENT + b"\n"
    if capabilities.takes_format:
        yield b"object-format=" + capabilities.object_format.encode() + b"\n"
    yield Mark.DELIMITER
    yield from arguments
    yield Mark.FLUSH


class RefsReader:
    """The response of `ls-refs`: of all the refs it holds, those asked for by their exact names."""

    def __init__(self, capabilities: Capabilities, names: Collection[str]) -> None:
        self.found: dict[str, Ref] = {}
        self.done = False
        self._names = names
        self._digits = ID_DIGITS[capabilities.object_format]

    def feed(self, packet: Packet) -> None:
        """One packet of it. Raises Garbled, RemoteError."""
        if self.done:
            raise Garbled("the answer to ls-refs goes on after its end")
        if packet is Mark.FLUSH:
            self.done = True
            return
        if isinstance(packet, Mark):
            raise Garbled("the answer to ls-refs holds a mark that does not belong there")
        oid, _, rest = text_of(packet).partition(" ")
        name, *attributes = rest.split(" ")
        if oid == "unborn":
            return
        peeled = next((a.removeprefix("peeled:") for a in attributes if a.startswith("peeled:")), "")
        for digits in (oid, peeled) if peeled else (oid,):
            if len(digits) != self._digits or not is_object_id(digits):
                raise Garbled("the answer to ls-refs holds a line without an object id")
        if name in self._names:
            self.found[name] = Ref(name, oid, peeled)


class _At(Enum):
    START = auto()
    SHALLOW = auto()
    ACKS = auto()
    PACK = auto()
    DONE = auto()


_TRANSITIONS: dict[tuple[_At, str | Mark], _At] = {
    (_At.START, "shallow-info"): _At.SHALLOW,
    (_At.START, "acknowledgments"): _At.ACKS,
    (_At.START, "packfile"): _At.PACK,
    (_At.SHALLOW, Mark.DELIMITER): _At.START,
    (_At.ACKS, Mark.DELIMITER): _At.START,
    (_At.PACK, Mark.FLUSH): _At.DONE,
}


class FetchReader:
    """The response of `fetch`: pack bytes as they come, and `shallow`, ids whose parents are left out."""

    def __init__(self) -> None:
        self.shallow: set[str] = set()
        self._at = _At.START

    @property
    def done(self) -> bool:
        """Whether the response is whole."""
        return self._at is _At.DONE

    def feed(self, packet: Packet) -> bytes:
        """One packet of it; returns the pack bytes in it, often none. Raises Garbled, RemoteError."""
        if isinstance(packet, bytes) and self._at is _At.PACK:
            return sideband(packet)
        if isinstance(packet, bytes) and self._at in (_At.SHALLOW, _At.ACKS):
            self._section_line(text_of(packet))
            return b""
        event = packet if isinstance(packet, Mark) else text_of(packet)
        if (self._at, event) not in _TRANSITIONS:
            what = event.name.lower() if isinstance(event, Mark) else repr(printable(event, 40))
            raise Garbled(f"the answer to fetch holds {what} where it does not belong")
        self._at = _TRANSITIONS[self._at, event]
        return b""

    def _section_line(self, line: str) -> None:
        if self._at is _At.SHALLOW and line.startswith("shallow "):
            if len(self.shallow) >= SHALLOW_MAX:
                raise Garbled("the answer to fetch names too many shallow commits")
            self.shallow.add(line.removeprefix("shallow "))


def sideband(packet: bytes) -> bytes:
    """The pack bytes in a packet of a multiplexed pack, often none. Raises Garbled, RemoteError."""
    band = packet[:1]
    if band == b"\x01":
        return packet[1:]
    if band == b"\x02":  # progress, for people at a terminal
        return b""
    if band == b"\x03":
        raise RemoteError(packet[1:])
    raise Garbled(f"the pack comes on side band {band!r}")


def text_of(packet: bytes) -> str:
    """A packet that is a line of text, without its end. Raises RemoteError for one that tells of an error."""
    if packet.startswith(b"ERR "):
        raise RemoteError(packet[4:])
    return packet.removesuffix(b"\n").decode("utf-8", "surrogateescape")
