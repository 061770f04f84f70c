"""Which runtime makes containers, what it is asked, and what its words mean."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient
from agent.keeper.client import SpawnFailed
from agent.process.oci import runtime


def installed(place: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        (place / name).write_text("#!/bin/sh\n")
        (place / name).chmod(0o755)
    monkeypatch.setattr(runtime, "PATH", str(place))


def test_runc_is_taken_and_where_it_is_not_there_crun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, monkeypatch)
    with pytest.raises(OperatorNeeded, match="neither runc nor crun is installed"):
        runtime.find(None)
    installed(tmp_path, monkeypatch, "crun")
    assert runtime.find(None) == runtime.Runtime(str(tmp_path / "crun"), crun=True)
    installed(tmp_path, monkeypatch, "runc")
    assert runtime.find(None) == runtime.Runtime(str(tmp_path / "runc"), crun=False)
    assert runtime.find(Path("/opt/crun-1.2")).crun


@pytest.mark.parametrize(
    ("uid", "crun", "limited", "makes"),
    [(0, False, True, True), (0, False, False, False), (0, True, True, False), (1000, False, True, False)],
)
def test_only_runc_makes_control_groups_as_root_and_for_limits(
    monkeypatch: pytest.MonkeyPatch, uid: int, crun: bool, limited: bool, makes: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    found = runtime.Runtime("/x", crun)
    assert found.makes_groups(limited=limited) == makes
    assert bool(found.asked(groups=makes)["groups"]) != makes


@pytest.mark.parametrize(
    ("stage", "code", "words", "kind", "reason"),
    [
        ("container", 22, 'exec: "/x": stat /x: no such file or directory', Permanent, "CommandNotFound"),
        ("container", 22, "executable file `/x` not found in $PATH", Permanent, "CommandNotFound"),
        ("container", 22, 'exec: "/x": permission denied', Permanent, "CommandNotExecutable"),
        ("container", errno.ETIMEDOUT, "not done within 8 s", Transient, "NoResources"),
        ("container", 22, "pivot_root: operation not permitted", OperatorNeeded, "ContainerNotPossible"),
        (runtime.NAMESPACES, 28, "No space left on device", OperatorNeeded, "ContainerNotPossible"),
    ],
)
def test_what_no_start_means(
    monkeypatch: pytest.MonkeyPatch, stage: str, code: int, words: str, kind: type[Failure], reason: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = runtime.failure(SpawnFailed(stage, code, words))
    assert (type(found), found.reason) == (kind, reason)
    assert words in str(found)
    assert ("max_user_namespaces" in str(found)) == (stage == runtime.NAMESPACES)
