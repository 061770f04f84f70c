from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.source.git import version0
from agent.source.git.pktline import Decoder, Garbled, Mark, Packet
from agent.source.git.protocol import Capabilities, Ref, RemoteError, Unsupported
from agent.source.git.version0 import FetchReader, fetch_request, is_spoken, read_advertisement

A, B = "a" * 40, "b" * 40
WORDS = b"multi_ack side-band-64k ofs-delta shallow filter object-format=sha1 agent=git/2.0"
FIRST = A.encode() + b" HEAD\0" + WORDS + b"\n"
DEEP = Capabilities(fetch=frozenset({"shallow"}), version=0)


def read_fetch(packets: Sequence[Packet], capabilities: Capabilities = DEEP) -> tuple[bytes, FetchReader]:
    reader = FetchReader(capabilities)
    return b"".join(reader.feed(packet) for packet in packets), reader


@pytest.mark.parametrize("head", [[], [b"version 1\n"], [b"# service=git-upload-pack\n", Mark.FLUSH]])
def test_refs_and_the_commits_behind_tags_are_read_from_the_advertisement(head: list[Packet]) -> None:
    tag = f"{B} refs/tags/v1\n".encode()
    packets: list[Packet] = [*head, FIRST, tag, f"{A} refs/tags/v1^{{}}\n".encode(), Mark.FLUSH]
    assert is_spoken(packets)
    capabilities, refs = read_advertisement(packets)
    assert refs == {"HEAD": Ref("HEAD", A), "refs/tags/v1": Ref("refs/tags/v1", B, A)}
    assert (capabilities.object_format, capabilities.version) == ("sha1", 0)


def test_an_empty_repository_has_no_refs() -> None:
    nothing: list[Packet] = [b"0" * 40 + b" capabilities^{}\0" + WORDS + b"\n", Mark.FLUSH]
    for packets in (nothing, nothing[1:]):
        assert is_spoken(packets)
        assert read_advertisement(packets)[1] == {}


def test_version_2_and_nonsense_are_not_taken_for_version_0() -> None:
    for line in (b"version 2\n", b"<html>\n", b"x" * 40 + b" HEAD\0\n"):
        assert not is_spoken([line, Mark.FLUSH])


def test_a_server_without_what_is_needed_is_told() -> None:
    for words in (b"ofs-delta", b"side-band-64k", b"side-band-64k ofs-delta object-format=sha3"):
        with pytest.raises(Unsupported):
            read_advertisement([A.encode() + b" HEAD\0" + words + b"\n", Mark.FLUSH])


def test_a_request_asks_for_no_more_than_the_server_offers() -> None:
    rich = Capabilities(
        "sha1", frozenset({"shallow", "filter"}), takes_agent=True, takes_format=True, version=0
    )
    lines = Decoder().feed(fetch_request(rich, A, depth=3, trees=False))
    assert isinstance(lines[0], bytes)
    assert lines[0].endswith(b"no-progress agent=emptybox object-format=sha1 filter\n")
    assert lines[1:] == [b"deepen 3\n", b"filter tree:0\n", Mark.FLUSH, b"done\n"]
    poor = Decoder().feed(fetch_request(Capabilities(version=0), A, depth=3, trees=False))
    want = f"want {A} side-band-64k ofs-delta no-progress\n".encode()
    assert poor == [want, Mark.FLUSH, b"done\n"]


def test_the_pack_and_the_shallow_commits_are_taken_out_of_the_answer() -> None:
    shallow: list[Packet] = [f"shallow {A}\n".encode(), f"unshallow {B}\n".encode(), Mark.FLUSH]
    data: list[Packet] = [b"NAK\n", b"\x01PA", b"\x02progress", b"\x01CK", Mark.FLUSH]
    pack, reader = read_fetch([*shallow, *data])
    assert (pack, reader.shallow, reader.done) == (b"PACK", {A}, True)
    pack, reader = read_fetch(data, Capabilities(version=0))
    assert (pack, reader.done) == (b"PACK", True)


@pytest.mark.parametrize(
    ("packets", "error"),
    [
        ([b"NAK\n"], Garbled),
        ([Mark.FLUSH, b"\x01PACK"], Garbled),
        ([Mark.FLUSH, b"NAK\n", Mark.FLUSH, b"\x01PACK"], Garbled),
        ([Mark.FLUSH, b"NAK\n", b"\x05x"], Garbled),
        ([b"ERR upload-pack: not our ref\n"], RemoteError),
        ([Mark.FLUSH, b"NAK\n", b"\x03it broke"], RemoteError),
    ],
)
def test_what_does_not_belong_there_is_refused(packets: list[Packet], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_fetch(packets)


def test_the_number_of_shallow_commits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version0, "SHALLOW_MAX", 2)
    with pytest.raises(Garbled):
        read_fetch([f"shallow {n:040x}\n".encode() for n in range(3)])


packets = st.lists(st.binary(max_size=60) | st.sampled_from(list(Mark)) | st.just(FIRST), max_size=8)


@given(packets)
def test_no_packets_crash_the_readers(given: list[Packet]) -> None:
    is_spoken(given)
    for read in (read_advertisement, read_fetch):
        try:
            read(given)
        except (Garbled, RemoteError, Unsupported):
            pass
