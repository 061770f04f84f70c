"""The store of releases under a real agent: looked at, put right, tidied, enough for a rollback offline."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box
from tests.kit.operator import Operator

QUICK: dict[str, Any] = {"http": "/healthz", "interval": "50ms", "deadline": "20s", "probation": "200ms"}


@pytest.fixture
def operator(box: Box) -> Operator:
    return Operator(box)


async def release(box: Box, number: int = 0) -> Path:
    """The tree of a release, of those there are in the order of their making."""
    trees = sorted((box.data / "store/trees").iterdir(), key=lambda tree: tree.stat().st_mtime_ns)
    return trees[number]


async def test_a_rollback_needs_neither_the_artifact_server_nor_git(box: Box, operator: Operator) -> None:
    for version in ("1.0", "2.0", "3.0"):
        await box.deploy(version, health=QUICK)
        if version == "1.0":
            await box.start()
        else:
            await operator("sync")
        await box.proven(version)
    shutil.rmtree(box.artifacts)
    await box.forge.stop()
    try:
        told = await operator("rollback", "web", "--to", "1.0")
        assert told.code == 0, told
        await box.serving("1.0")
        assert (await operator("rollback", "web", "--to", "2.0")).code == 0
        await box.serving("2.0")
    finally:
        await box.forge.start()


async def test_no_program_is_started_in_a_release_that_somebody_changed(box: Box, operator: Operator) -> None:
    for version in ("1.0", "2.0"):
        await box.deploy(version, health=QUICK)
        if version == "1.0":
            await box.start()
        else:
            await operator("sync")
        await box.proven(version)
    first = await release(box)
    (first / "bin/VERSION").write_text("6.6.6 good\n")
    shutil.move(box.artifacts, hidden := box.artifacts.with_name("hidden"))

    refused = await operator("rollback", "web", "--to", "1.0")
    assert refused.code != 0
    assert "bin/VERSION changed on this host" in refused.out + refused.err
    await box.serving("2.0")

    shutil.move(hidden, box.artifacts)
    told = await operator("rollback", "web", "--to", "1.0")
    assert told.code == 0, told
    await box.serving("1.0")
    assert (first / "bin/VERSION").read_text() == "1.0 good\n"


async def test_the_store_is_listed_verified_repaired_and_tidied_while_the_app_serves(
    box: Box, operator: Operator
) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    tree = await release(box)
    pid = (await box.app())["child"]["pid"]

    (row,) = (await operator("store", "ls", "--json")).json["releases"]
    assert row["release"] == tree.name
    assert row["apps"][0]["app"] == "web"
    assert row["apps"][0]["is"] == ["current", "good", "wanted"]
    assert "1.0 (current, good, wanted)" in (await operator("store", "ls")).out
    assert (await operator("store", "du", "--json")).json["parts"]["releases"]["bytes"] == row["bytes"]
    assert (await operator("store", "verify")).code == 0

    (tree / "bin/VERSION").write_text("6.6.6 good\n")
    (tree / "extra").touch()
    found = await operator("store", "verify", "--json")
    assert found.code == 1
    (one,) = found.json["releases"]
    assert (one["verdict"], one["changed"], one["extra"]) == ("changed", ["bin/VERSION"], ["extra"])
    told = await operator("store", "verify", "--repair", tree.name)
    assert told.code == 0, told
    assert told.out.startswith("repaired")
    assert (tree / "bin/VERSION").read_text() == "1.0 good\n"
    assert (await box.app())["child"]["pid"] == pid
    assert (await operator("store", "verify", "nothing-of-the-kind")).code == 4

    left = tree.with_name("0123456789ab-left-over")
    left.mkdir()
    (left / "file").write_bytes(bytes(10_000))
    assert f"would go: {left.name} (9.8 KiB)" in (await operator("store", "gc", "--dry-run")).out
    assert left.is_dir()
    assert [gone["release"] for gone in (await operator("store", "gc", "--json")).json["removed"]] == [
        left.name
    ]
    assert not left.exists()
    assert tree.is_dir()
    await box.serving("1.0")


async def test_without_an_agent_the_store_can_be_looked_after_too(box: Box, operator: Operator) -> None:
    assert (await operator("store", "ls")).code == 3
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    tree = await release(box)
    await box.stop()

    assert tree.name in (await operator("store", "ls")).out
    assert (await operator("store", "verify")).code == 0
    (tree.with_name("0123456789ab-left-over")).mkdir()
    assert "removed: 0123456789ab-left-over" in (await operator("store", "gc")).out
    assert tree.is_dir()
    (tree / "bin/VERSION").write_text("6.6.6 good\n")
    assert (await operator("store", "verify")).code == 1
    assert (await operator("store", "verify", "--repair")).code == 3

    await box.start()  # puts it right before it starts anything
    await box.serving("1.0")
    assert (tree / "bin/VERSION").read_text() == "1.0 good\n"


async def test_old_releases_go_when_the_store_is_larger_than_the_host_wants(
    box: Box, operator: Operator
) -> None:
    box.settings["--store-size"] = "1K"
    for version in ("1.0", "2.0", "3.0"):
        await box.deploy(version, health=QUICK, keep=10)
        if version == "1.0":
            await box.start()
        else:
            await operator("sync")
        await box.proven(version)

    assert len(os.listdir(box.data / "store/trees")) < 3

    async def only_one() -> bool:  # once the child of the version before has ended
        await operator("store", "gc")
        return len(os.listdir(box.data / "store/trees")) == 1

    await box.until(only_one)
    listed = (await operator("store", "ls", "--json")).json["releases"]
    assert [use["version"] for row in listed for use in row["apps"]] == ["3.0"]
    await box.serving("3.0")
