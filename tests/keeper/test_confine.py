"""The parts of a confinement; what they do to a program is tried in tests/system/test_isolation.py."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.keeper.confine import landlock, seccomp
from agent.keeper.confine.orders import Confinement
from agent.keeper.confine.system import AUDIT, MACHINES

TIERS = ("standard", "strict")
HERE = ("x86_64", "aarch64")


def judged(tier: str, here: str, machine: str, number: int, first: int = 0, fourth: int = 0) -> int:
    """What the filter returns: the kernel's interpreter, as far as the filter uses it."""
    program = seccomp.program(tier, here)
    steps: list[tuple[int, int, int, int]] = list(struct.iter_unpack("=HBBI", program))
    data = {0: number, 4: AUDIT[machine], 16: first, 40: fourth}
    value = place = 0
    while True:
        code, yes, no, k = steps[place]
        place += 1
        if code == 0x06:
            return k
        if code == 0x20:
            value = data[k]
        elif code == 0x05:
            place += k
        else:
            true = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            place += yes if true else no


def numbers(machine: str, *tables: object) -> set[int]:
    column = MACHINES.index(machine)
    return {row[column] for table in tables for row in table.values() if row[column] is not None}  # type: ignore[attr-defined]


@pytest.mark.parametrize("here", HERE)
@pytest.mark.parametrize("tier", TIERS)
def test_each_call_is_denied_by_the_list_and_no_other(tier: str, here: str) -> None:
    denied = numbers(here, seccomp.MACHINE_WIDE, *([seccomp.BEYOND] if tier == "strict" else []))
    absent = numbers(here, seccomp.RINGS) | ({seccomp.CLONE3} if tier == "strict" else set())
    for number in range(600):
        answer = judged(tier, here, here, number)
        if number in denied:
            assert answer == seccomp.ERRNO | errno.EPERM, number
        elif number in absent:
            assert answer == seccomp.ERRNO | errno.ENOSYS, number
        else:
            assert answer == seccomp.ALLOW, number


@pytest.mark.parametrize("here", HERE)
def test_standard_lets_a_sandbox_bind_what_is_there_and_mount_nothing_new(here: str) -> None:
    number = seccomp.MACHINE_WIDE["mount"][MACHINES.index(here)]
    assert number is not None
    bind, recursive, remount = 1 << 12, 1 << 14, 1 << 5
    assert judged("standard", here, here, number, fourth=bind | recursive) == seccomp.ALLOW
    assert judged("standard", here, here, number, fourth=remount) == seccomp.ERRNO | errno.EPERM
    assert judged("strict", here, here, number, fourth=bind) == seccomp.ERRNO | errno.EPERM


@pytest.mark.parametrize("here", HERE)
def test_strict_lets_threads_and_processes_be_made_but_no_namespaces(here: str) -> None:
    clone = seccomp.CLONE[MACHINES.index(here)]
    assert judged("strict", here, here, clone, 0x3D0F00) == seccomp.ALLOW  # pthread_create
    for flag in (0x00000080, 0x00020000, 0x02000000, 0x10000000, 0x20000000, 0x40000000):
        assert judged("strict", here, here, clone, flag | 17) == seccomp.ERRNO | errno.EPERM
        assert judged("standard", here, here, clone, flag | 17) == seccomp.ALLOW


@given(number=st.integers(0, 0xFFFFFFFF))
def test_calls_of_other_architectures_are_no_way_around(number: int) -> None:
    absent = seccomp.ERRNO | errno.ENOSYS
    assert judged("strict", "x86_64", "i386", number) == absent
    assert judged("standard", "aarch64", "i386", number) == absent
    assert judged("standard", "x86_64", "x86_64", number | seccomp.X32) == absent
    wanted = number in numbers("i386", seccomp.MACHINE_WIDE)
    assert (judged("standard", "x86_64", "i386", number) == seccomp.ERRNO | errno.EPERM) == wanted


def test_what_an_older_landlock_lacks_is_named_with_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wish = {"scopes": ["signals"], "read": ["/usr"], "write": [], "bind": [], "connect": None}
    monkeypatch.setattr(landlock, "version", lambda: 3)
    held, lacking = landlock.held(wish)
    assert held == ["ptrace", "files"]
    assert lacking["ports"] == "Landlock here has version 3, it takes 4"
    assert set(lacking) == {"ports", "signals"}
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert landlock.held(wish)[0] == []


def test_a_part_that_must_be_there_is_an_error_and_any_other_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 1)
    keep_all = list(range(64))
    order = {"calls": "standard", "capabilities": keep_all, "landlock": {"scopes": ["signals"]}}
    stage = [""]
    work = Confinement(order, stage, (os.geteuid(), os.getegid()))
    work.begin()
    assert set(work.lacking) == {"ptrace", "signals"}
    with pytest.raises(OSError, match="it takes 2") as caught:
        Confinement({**order, "must": ["ptrace"]}, stage, (0, 0)).begin()
    assert (stage[0], caught.value.errno) == ("confine ptrace", errno.EOPNOTSUPP)
