from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.text import printable
from agent.source.git import protocol
from agent.source.git.pktline import Garbled, Mark, Packet
from agent.source.git.protocol import (
    Capabilities,
    FetchReader,
    Ref,
    RefsReader,
    RemoteError,
    Unsupported,
    is_ref_name,
    read_advertisement,
)

A, B = "a" * 40, "b" * 40
SHA1 = Capabilities(fetch=frozenset({"shallow", "filter"}), takes_agent=True, takes_format=True)


def read_fetch(packets: Sequence[Packet]) -> tuple[bytes, FetchReader]:
    reader = FetchReader()
    return b"".join(reader.feed(packet) for packet in packets), reader


def read_refs(packets: Sequence[Packet], *names: str) -> dict[str, Ref]:
    reader = RefsReader(SHA1, names)
    for packet in packets:
        reader.feed(packet)
    assert reader.done
    return reader.found


def test_an_advertisement_is_read_with_and_without_the_service_line() -> None:
    lines: list[Packet] = [
        b"version 2\n",
        b"agent=git/2\n",
        b"ls-refs=unborn\n",
        b"fetch=shallow filter\n",
        b"object-format=sha256\n",
        Mark.FLUSH,
    ]
    plain = read_advertisement(lines)
    assert plain == read_advertisement([b"# service=git-upload-pack\n", Mark.FLUSH, *lines])
    assert plain == Capabilities("sha256", frozenset({"shallow", "filter"}), True, True)


@pytest.mark.parametrize(
    "lines",
    [
        [b"version 2\n", b"ls-refs\n"],
        [b"version 2\n", b"ls-refs\n", b"fetch\n", b"object-format=sha3\n"],
    ],
)
def test_servers_that_cannot_be_spoken_to_are_told_from_nonsense(lines: list[Packet]) -> None:
    with pytest.raises(Unsupported):
        read_advertisement([*lines, Mark.FLUSH])


@pytest.mark.parametrize("lines", [[], [b"version 3\n"], [b"<html>\n"], [b"\n"]])
def test_an_advertisement_that_is_none_is_garbled(lines: list[Packet]) -> None:
    with pytest.raises(Garbled):
        read_advertisement(lines)


def test_names_are_compared_whole_because_a_prefix_was_asked_for() -> None:
    packets: list[Packet] = [
        f"{A} refs/heads/main\n".encode(),
        f"{B} refs/heads/main-two\n".encode(),
        f"{B} refs/heads/main/three\n".encode(),
        Mark.FLUSH,
    ]
    assert read_refs(packets, "refs/heads/main") == {"refs/heads/main": Ref("refs/heads/main", A)}


def test_a_tag_is_followed_to_what_it_is_of() -> None:
    found = read_refs([f"{A} refs/tags/v1 peeled:{B}\n".encode(), Mark.FLUSH], "refs/tags/v1")
    assert found["refs/tags/v1"].commit == B


def test_a_default_branch_without_commits_is_not_there() -> None:
    assert read_refs([b"unborn HEAD symref-target:refs/heads/main\n", Mark.FLUSH], "HEAD") == {}


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"x\n",
        b"a" * 64 + b" HEAD\n",
        A.encode() + b" HEAD peeled:zz\n",
        b"A" * 40 + b" HEAD\n",
        Mark.DELIMITER,
    ],
)
def test_refs_without_ids_are_garbled(packet: Packet) -> None:
    with pytest.raises(Garbled):
        read_refs([packet, Mark.FLUSH], "HEAD")


def test_the_pack_and_the_shallow_commits_are_taken_out_of_a_fetch() -> None:
    pack, reader = read_fetch(
        [
            b"shallow-info\n",
            f"shallow {A}\n".encode(),
            f"unshallow {B}\n".encode(),
            Mark.DELIMITER,
            b"packfile\n",
            b"\x02Counting\n",
            b"\x01PACK",
            b"\x01more",
            Mark.FLUSH,
        ]
    )
    assert pack == b"PACKmore"
    assert reader.shallow == {A}
    assert reader.done


@pytest.mark.parametrize(
    "packets",
    [
        [b"packfile-uris\n"],
        [b"packfile\n", b"\x04x"],
        [b"packfile\n", b""],
        [b"packfile\n", Mark.DELIMITER],
        [b"packfile\n", Mark.FLUSH, Mark.FLUSH],
        [b"packfile\n", Mark.FLUSH, b"packfile\n"],
        [Mark.FLUSH],
        [b"shallow-info\n", Mark.FLUSH],
    ],
)
def test_sections_out_of_order_are_garbled(packets: list[Packet]) -> None:
    with pytest.raises(Garbled):
        read_fetch(packets)


@pytest.mark.parametrize(
    "packets",
    [
        [b"ERR upload-pack: not our ref\n"],
        [b"shallow-info\n", b"ERR no\n"],
        [b"packfile\n", b"\x03fatal: no\n"],
    ],
)
def test_the_words_of_a_refusing_server_are_kept(packets: list[Packet]) -> None:
    with pytest.raises(RemoteError, match="no"):
        read_fetch(packets)


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(Mark)), max_size=12))
def test_any_packets_are_read_or_refused_in_a_known_way(packets: list[Packet]) -> None:
    for read in (read_advertisement, read_fetch, lambda p: read_refs([*p, Mark.FLUSH], "HEAD")):
        try:
            read(packets)
        except (Garbled, RemoteError, Unsupported):
            pass


def test_requests_name_only_what_the_server_knows() -> None:
    bare = Capabilities()
    assert b"agent" not in protocol.ls_refs_request(bare, ["HEAD"])
    assert b"deepen" not in protocol.fetch_request(bare, A, depth=1, trees=False)
    full = protocol.fetch_request(SHA1, A, depth=3, trees=False)
    assert b"deepen 3\n" in full
    assert b"filter tree:0\n" in full
    assert b"object-format=sha1\n" in full


@pytest.mark.parametrize("name", ["main", "feature/x", "v1.0", "ümlaut", "refs/heads/main", "HEAD"])
def test_names_of_refs_pass(name: str) -> None:
    assert is_ref_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a\nb", "a\0", "a..b", "a~1", "a^", "a:b", "-x", "/a", "a/", "a//b", "x" * 2000, "a@{1}"],
)
def test_what_cannot_be_a_ref_is_told(name: str) -> None:
    assert not is_ref_name(name)


@given(st.text(), st.integers(1, 50))
def test_words_of_others_become_one_short_printable_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
