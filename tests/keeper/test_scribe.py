"""Children's lines on disk: whole, rotated, and never at the cost of a child."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from agent.keeper.output import BURST, CHUNK, LINES_KEPT, Output, Sink
from agent.keeper.scribe import Log, Scribe, write
from tests.kit.keepers import Agent, KeeperProcess, kept, python, until

__all__ = ["kept"]


def lines_of(path: Path) -> list[str]:
    """The texts in a file, without their heads, as far as their lines are whole."""
    return [line.split(": ", 1)[1] for line in path.read_text().rpartition("\n")[0].splitlines()]


async def test_lines_are_kept_with_time_and_process(agent: Agent, tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    record = await agent.client.spawn(
        python("x", "print('one'); print('two')", prefix="web", log=(str(path), 1 << 20, 3))
    )
    await until(lambda: path.exists() and len(path.read_text().splitlines()) == 2)
    first, second = path.read_text().splitlines()
    assert first.endswith(f"Z web[{record.pid}]: one")
    assert second.endswith(f"Z web[{record.pid}]: two")
    assert path.stat().st_mode & 0o777 == 0o600


async def test_files_are_rotated_by_size_and_only_so_many_are_kept(agent: Agent, tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    code = "for n in range(30000): print(f'{n:020}')"
    await agent.client.spawn(python("x", code, prefix="web", log=(str(path), 256 << 10, 3)))

    def ended() -> bool:
        return path.exists() and lines_of(path)[-1:] == [f"{29999:020}"]

    await until(ended)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["output.log", "output.log.1", "output.log.2"]
    said = [line for n in (2, 1) for line in lines_of(tmp_path / f"output.log.{n}")] + lines_of(path)
    assert said == [f"{n:020}" for n in range(30000 - len(said), 30000)], "in order, without a gap"


async def test_the_end_of_the_keeper_leaves_no_scribe_and_every_line(
    kept: KeeperProcess, tmp_path: Path
) -> None:
    path = tmp_path / "output.log"
    code = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(print('bye')))\n"
    code += "print('hi')\nsignal.pause()"
    agent = await kept.agent()
    await agent.client.spawn(python("x", code, prefix="web", log=(str(path), 1 << 20, 3)))
    await until(lambda: path.exists() and lines_of(path) == ["hi"])
    kept.process.terminate()
    await agent.told_signal()
    agent.exit(0)
    assert await kept.ended() == 0
    assert lines_of(path) == ["hi", "bye"], "the scribe was the last to end"


def scribe_of(keeper: int) -> int:
    children = map(int, Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split())
    (scribe,) = [pid for pid in children if os.getsid(pid) == os.getsid(keeper)]
    return scribe


async def test_the_death_of_the_keeper_is_the_end_of_the_scribe(kept: KeeperProcess, tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    agent = await kept.agent()
    code = "import signal; print('hi'); signal.pause()"
    await agent.client.spawn(python("x", code, prefix="web", log=(str(path), 1 << 20, 3)))
    await until(path.exists)
    scribe = os.pidfd_open(scribe_of(kept.pid))
    try:
        kept.process.kill()
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(scribe, ended.set)
        async with asyncio.timeout(20):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(scribe)
        os.close(scribe)


async def test_a_scribe_that_is_killed_is_begun_again(kept: KeeperProcess, tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    agent = await kept.agent()
    code = f"for line in open({str(pipe)!r}): print(line.strip())"
    await agent.client.spawn(python("x", code, prefix="web", log=(str(path), 1 << 20, 3)))
    with await asyncio.to_thread(open, pipe, "w", 1) as said:
        said.write("before\n")
        await until(lambda: path.exists() and lines_of(path) == ["before"])
        os.kill(scribe_of(kept.pid), signal.SIGKILL)
        end = time.monotonic() + 20
        while lines_of(path)[-1] != "after" and time.monotonic() < end:
            said.write("after\n")
            await asyncio.sleep(0.05)
    assert lines_of(path)[-1] == "after"


def test_a_queue_that_is_full_drops_and_counts(tmp_path: Path) -> None:
    scribe, log = Scribe(), Log(str(tmp_path / "output.log"), 64 << 20, 1)
    line = b"x" * 4000
    scribe.put(log, "web[1]", [line])
    assert scribe.fd >= 0
    child = int(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()[-1])
    try:
        os.kill(child, signal.SIGSTOP)
        for _ in range(200):
            scribe.put(log, "web[1]", [line] * 16)
        os.kill(child, signal.SIGCONT)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            scribe.flush()
            if not scribe.waiting:
                break
        scribe.end()
        scribe.close()
    finally:
        os.waitpid(child, 0)
    *told, last = (tmp_path / "output.log").read_text().splitlines()
    dropped = int(last.split(" keeper: ")[1].split()[0])
    assert len(told) + dropped == 1 + 200 * 16
    assert dropped > 0


def test_a_disk_that_refuses_is_no_end_and_what_was_lost_is_told(tmp_path: Path) -> None:
    lost: dict[str, int] = {}
    path = tmp_path / "later" / "output.log"
    for _ in range(3):
        write(str(path), 1000, 2, b"now web[1]: ", [b"a", b"b"], lost)
    path.parent.mkdir()
    write(str(path), 1000, 2, b"now web[1]: ", [b"c"], lost)
    assert lines_of(path) == ["(6 lines before could not be written)", "c"]
    assert lost == {}


@pytest.mark.parametrize("log", [("relative", 1, 1), ("/x\0y", 1, 1), ("/x", 0, 1), ("/x", 1, 0)])
def test_a_log_that_makes_no_sense_is_refused(log: tuple[str, int, int]) -> None:
    with pytest.raises(ValueError, match="no log can be kept"):
        Log(*log)


def test_who_says_too_much_is_heard_but_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("agent.keeper.output.time.monotonic", lambda: now[0])
    reading, writing = os.pipe()
    kept_lines: list[bytes] = []
    with open(os.devnull, "wb") as null:
        output = Output(reading, "web", Sink(null.fileno()), kept_lines.extend)
        line = b"y" * 99 + b"\n"
        chunk = line * (CHUNK // len(line))
        rounds = 2 * BURST // len(chunk)
        for _ in range(rounds):
            os.write(writing, chunk)
            output.drain()
        passed = len(kept_lines)
        assert BURST - 2 * len(chunk) < passed * len(line) <= BURST
        assert output.tail(1000) == ["y" * 99] * LINES_KEPT, "the last lines are known all the same"
        now[0] += 60.0
        os.write(writing, b"calm\n")
        output.drain()
        dropped = rounds * (CHUNK // len(line)) - passed
        assert kept_lines[passed:] == [
            b"keeper | %d lines dropped: more than 4 MiB a second" % dropped,
            b"calm",
        ]
        for _ in range(rounds):
            os.write(writing, chunk)
            output.drain()
        os.close(writing)
        assert not output.drain()
        assert b"lines dropped: more than" in kept_lines[-1], "told at the end, too"
        output.close()
