"""Memory and processor time of a program and all it started."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.process.usage import usage

SPEAK = "import sys, time; print('ready', flush=True); sys.stdin.read()"
FAMILY = (
    "import subprocess, sys\n"
    f"children = [subprocess.Popen([sys.executable, '-S', '-c', {SPEAK!r}]) for _ in range(2)]\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def family() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    try:
        yield process.pid
    finally:
        process.communicate(timeout=30)


def test_a_program_counts_with_all_it_started(family: int) -> None:
    used = usage([family])[family]
    assert used.processes == 3
    assert used.pss is not None
    assert used.rss >= used.pss > 0
    assert used.cpu_seconds >= 0


def test_a_process_by_itself_does_not_count_what_has_a_session_of_its_own(family: int) -> None:
    alone = usage([], [os.getpid()])[os.getpid()]
    both = usage([family], [os.getpid()])
    assert both[os.getpid()].processes == alone.processes
    assert both[family].processes == 3


def test_who_is_gone_is_left_out() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert usage([process.pid]) == {}


def test_a_child_of_its_leader_counts_also_in_a_session_of_its_own() -> None:
    started = f"subprocess.run([sys.executable, '-S', '-c', {SPEAK!r}], start_new_session=True)"
    leader = f"import subprocess, sys\n{started}"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", leader],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert usage([process.pid])[process.pid].processes == 2
        process.communicate(timeout=30)
