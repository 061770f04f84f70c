from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from agent.kit.outflow import MOST, Outflow


def test_nobody_waits_for_a_reader_that_does_not_read_and_what_was_dropped_is_told() -> None:
    reading, writing = os.pipe()
    line = "x" * 99 + "\n"
    count = 3 * MOST // len(line)
    stream = Outflow(writing)
    for _ in range(count):
        stream.write(line)
    got = bytearray()
    while got.count(b"\n") < MOST // len(line):
        got += os.read(reading, 1 << 16)

    def read() -> None:
        while data := os.read(reading, 1 << 16):
            got.extend(data)

    drain = threading.Thread(target=read)
    drain.start()
    while stream._given - stream._written > MOST:
        time.sleep(0.01)
    stream.write("and then\n")
    stream.close()
    os.close(writing)
    drain.join()
    os.close(reading)
    *told, last = got.decode().splitlines()
    dropped = [int(text.split()[0]) for text in told if text.endswith(" lines dropped: nobody took them")]
    assert last == "and then"
    assert dropped
    assert told.count(line.strip()) == len(told) - len(dropped) == count - sum(dropped)


def test_the_last_words_of_a_process_are_written() -> None:
    code = (
        "import logging, sys; from agent.status.log import setup; from agent.kit.outflow import Outflow;"
        "setup(stream=Outflow(2)); logging.error('first'); logging.error('last'); sys.exit(3)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 3
    assert [line.split()[2] for line in ran.stderr.splitlines()] == ["first", "last"]


def test_without_a_thread_it_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    reading, writing = os.pipe()
    Outflow(writing).write("text\n")
    assert os.read(reading, 100) == b"text\n"
    os.close(reading)
    os.close(writing)
