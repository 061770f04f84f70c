"""The disk is asked early, by a thread that nobody waits for."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from agent.kit import writeback
from agent.kit.writeback import Writeback


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "artifact-writeback"]


def test_the_disk_hears_of_a_file_that_is_closed_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    told = threading.Event()

    def hear(fd: int) -> None:
        heard.append(os.readlink(f"/proc/self/fd/{fd}"))
        told.set()

    monkeypatch.setattr(writeback, "begin_writing", hear)
    early = Writeback()
    with (tmp_path / "file").open("wb") as file:
        early.begin(file.fileno())
    assert told.wait(30)
    early.close()
    assert heard == [str(tmp_path / "file")]


def test_of_many_files_the_disk_hears_once_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    told = threading.Event()

    def hear(fd: int) -> None:
        heard.append(os.readlink(f"/proc/self/fd/{fd}"))
        told.set()

    monkeypatch.setattr(writeback, "sync_filesystem_of", hear)
    early = Writeback()
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    early.begin_all(directory)
    os.close(directory)
    assert told.wait(30)
    early.end()
    assert heard == [str(tmp_path)]
    assert threads() == []


def test_what_could_not_be_written_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def fail(fd: int) -> None:
        tried.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(writeback, "sync_filesystem_of", fail)
    early = Writeback()
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = descriptors()
    early.begin_all(directory)
    assert tried.wait(30)
    with pytest.raises(OSError, match="Input/output error"):
        early.end()
    assert descriptors() == before
    os.close(directory)
    early.close()
    assert threads() == []


def test_a_disk_that_is_behind_holds_nobody_up_and_keeps_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        begun.set()
        assert go.wait(30)

    monkeypatch.setattr(writeback, "begin_writing", slow)
    before = descriptors()
    early = Writeback()
    with (tmp_path / "file").open("wb") as file:
        early.begin(file.fileno())
        assert begun.wait(30)
        for _ in range(1000):
            early.begin(file.fileno())
        assert descriptors() <= before + 70
    threading.Timer(0.01, go.set).start()
    early.close()
    early.close()
    assert descriptors() == before
    assert threads() == []


@pytest.mark.parametrize(
    ("what", "error"),
    [("os.dup", OSError(24, "Too many open files")), ("threading.Thread.start", RuntimeError("can't start"))],
)
def test_what_is_lacking_for_it_is_nobodys_failure(
    what: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    early = Writeback()
    with (tmp_path / "file").open("wb") as file:
        with monkeypatch.context() as lacking:
            lacking.setattr(what, refuse)
            early.begin(file.fileno())
        early.close()
    assert threads() == []


def test_who_has_nothing_large_has_no_thread(tmp_path: Path) -> None:
    early = Writeback()
    assert threads() == []
    early.close()
