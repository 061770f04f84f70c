from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.keeper.output import LINE_MAX, LINES_KEPT, SINK_MAX, Output, Sink
from tests.kit.keepers import Agent, keeper, python, request, said


def read_all(chunks: list[bytes], prefix: str, to: Path) -> tuple[Output, bytes]:
    """What a child's chunks become: its Output at the end, and what was passed through."""
    with to.open("wb") as file:
        sink = Sink(file.fileno())
        reading, writing = os.pipe()
        output = Output(reading, prefix, sink)
        for chunk in chunks:
            os.write(writing, chunk)
            output.drain()
        os.close(writing)
        assert not output.drain()
        output.close()
    return output, to.read_bytes()


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=10))
def test_lines_are_the_same_however_they_arrive(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]
) -> None:
    data = data.replace(b"7", b"\n")
    chunks, rest = [], data
    for size in cuts:
        chunks.append(rest[:size])
        rest = rest[size:]
    output, passed = read_all([*chunks, rest], "", tmp_path_factory.getbasetemp() / f"out{os.getpid()}")
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert output.tail(1000) == [line.decode(errors="replace") for line in lines]
    assert passed == b"".join(line + b"\n" for line in lines)


def test_each_line_gets_the_prefix_and_the_last_needs_no_newline(tmp_path: Path) -> None:
    output, passed = read_all([b"one\ntw", b"o\n\nthree"], "web", tmp_path / "out")
    assert passed == b"web | one\nweb | two\nweb | \nweb | three\n"
    assert output.tail(2) == ["", "three"]


def test_a_line_without_end_becomes_several(tmp_path: Path) -> None:
    output, passed = read_all([b"x" * (3 * LINE_MAX) + b"y\nz\n"], "", tmp_path / "out")
    assert [len(line) for line in output.tail(100)] == [LINE_MAX, LINE_MAX, LINE_MAX, 1, 1]
    assert passed.replace(b"\n", b"") == b"x" * 3 * LINE_MAX + b"yz"


def test_only_the_last_lines_are_kept(tmp_path: Path) -> None:
    output, _ = read_all([b"".join(b"%d\n" % n for n in range(5000))], "", tmp_path / "out")
    assert output.tail(1000) == [str(n) for n in range(5000 - LINES_KEPT, 5000)]
    assert output.tail(0) == []


def test_a_full_reader_loses_lines_and_is_told_how_many() -> None:
    reading, writing = os.pipe()
    try:
        sink = Sink(writing)
        lines = [b"%06d" % n for n in range(3 * SINK_MAX // 7)]
        for start in range(0, len(lines), 1000):
            sink.put(b"", lines[start : start + 1000])
        got = b""
        os.set_blocking(reading, False)
        while True:
            try:
                got += os.read(reading, 1 << 16)
            except BlockingIOError:
                if not sink.waiting:
                    break
                sink.flush()
        *kept, last = got.splitlines()
        assert kept == lines[: len(kept)]
        assert last == b"keeper | %d lines dropped: the reader is too slow" % (len(lines) - len(kept))
        assert os.get_blocking(writing), "who shares the pipe must not find it changed"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    sink = Sink(writing)
    sink.put(b"", [b"text"])
    assert not sink.waiting
    os.close(writing)


async def test_a_flooding_child_starves_nobody_and_stdout_nobody_reads_stops_nothing() -> None:
    reading, writing = os.pipe()
    try:
        async with keeper(stdout=writing) as kept:
            client = (await kept.agent()).client
            for n in range(3):
                await client.spawn(request(f"flood{n}", ["yes"], prefix=f"flood{n}"))
            await said(client, "flood2", "y")
            for n in range(50):
                await client.note("n", str(n))
            await client.spawn(python("calm", "print('calm')"))
            assert (await client.wait("calm")).code == 0
            assert await client.tail("calm") == ["calm"]
            assert await client.tail("flood0") == ["y"] * LINES_KEPT
    finally:
        os.close(reading)
        os.close(writing)


async def test_lines_of_a_child_that_is_gone_stay_until_it_is_forgotten(agent: Agent) -> None:
    await agent.client.spawn(
        python("x", "import sys; print('out'); print('err', file=sys.stderr); print('end', end='')")
    )
    await agent.client.wait("x")
    assert await agent.client.tail("x") == ["out", "err", "end"]
    assert await agent.client.tail("x", 1) == ["end"]
    await agent.client.forget("x")
    with pytest.raises(LookupError):
        await agent.client.tail("x")


async def test_the_worst_lines_fit_an_answer(agent: Agent) -> None:
    await agent.client.spawn(
        python("nul", "import os\nfor _ in range(300): os.write(1, bytes(4095) + b'\\n')")
    )
    await agent.client.wait("nul")
    async with asyncio.timeout(10):
        lines = await agent.client.tail("nul")
    assert lines
    assert set(lines) == {"\0" * 4095}
