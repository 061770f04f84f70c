"""Containers by an agent that is not root: real runc, as a user of this machine without any right."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import sandbox
from tests.kit.box import DEADLINE, Box
from tests.kit.containers import bundles, left, need, processes, served, shell, state

pytestmark = pytest.mark.root


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A box of nobody's, in a directory that every user can enter."""
    sandbox.as_root()
    need("runc", "busybox")
    directory = Path(tempfile.mkdtemp(prefix="emptybox-open-"))
    directory.chmod(0o755)
    os.chown(directory, sandbox.NOBODY, sandbox.NOBODY)
    try:
        async with Box(directory) as box:
            box.secret_file.chmod(0o644)
            box.data.mkdir()
            os.chown(box.data, sandbox.NOBODY, sandbox.NOBODY)
            box.wrapper = sandbox.unprivileged()
            yield box
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def name() -> str:
    return f"app-{secrets.token_hex(4)}"


async def once(box: Box, name: str, **app: Any) -> tuple[int | None, str, str]:
    """Exit code, output and log of a job in a container."""
    await box.commit(state(box, name, shell(), **app))
    process = await asyncio.create_subprocess_exec(
        *box.command("once"), "--app", name, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(DEADLINE):
        out, log = await process.communicate()
    return process.returncode, out.decode(), log.decode()


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_who_is_not_root_is_root_in_a_container_of_its_own(box: Box, name: str, runtime: str) -> None:
    need(runtime)
    box.settings["--container-runtime"] = shutil.which(runtime, path="/usr/sbin:/usr/bin") or ""
    script = """
        echo "$(cat /proc/sys/kernel/hostname) $(id -u)"; cat etc/greeting
        touch /mine && echo kept > data/kept && ls /sys/fs/cgroup; grep NoNew /proc/self/status
    """
    command = ["sh", "-c", script]
    code, out, log = await once(
        box, name, job={"driver": "oci", "command": command, "hostname": "HAL-9000"},
        files=[{"content": "rendered\n", "target": "etc/greeting"}], dirs={"state": "data"},
    )  # fmt: skip
    assert (code, out) == (0, "HAL-9000 0\nrendered\nNoNewPrivs:\t1\n"), log
    kept = box.data / "apps" / name / "dirs/state/kept"
    assert (kept.read_text(), kept.stat().st_uid) == ("kept\n", sandbox.NOBODY)
    assert left(box, name) == []


async def test_a_server_without_root_is_updated_as_any_other_and_nothing_is_left_of_a_killed_keeper(
    box: Box, name: str
) -> None:
    await box.commit({"schema": 1, "apps": {name: served(box, "1.0", "adopt")}})
    await box.start()
    await box.serving("1.0")
    told = await box.app_is(name, state="running", good__version="1.0")
    assert {"container", "overlay", "calls", "capabilities"} <= set(told["child"]["isolation"]["in_force"])
    assert box.process is not None
    box.process.kill()
    await box.ended()

    async def gone() -> bool:
        return not processes(name)

    await box.until(gone)
    await box.commit({"schema": 1, "apps": {name: served(box, "2.0", "adopt")}})
    await box.start()
    await box.serving("2.0")
    await box.app_is(name, state="running", good__version="2.0")

    async def alone() -> bool:  # the one that began before it looked at the state goes with its time
        return len(bundles(box)) == 1

    await box.until(alone)
    assert await box.stop() == 0
    assert processes(name) == []
    assert left(box, name) == []


async def test_where_the_host_refuses_namespaces_that_is_said_with_what_to_do(box: Box, name: str) -> None:
    user = 0x10000000  # CLONE_NEWUSER, of clone(2)
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    box.wrapper = [*sandbox.refusing(f"{clone}={errno.EPERM}@0&{user}"), *box.wrapper]
    code, out, log = await once(box, name, job={"driver": "oci", "command": ["sh", "-c", "echo never"]})
    assert (code, out) == (1, ""), log
    assert "ContainerNotPossible" in log
    assert "only root can start containers here" in log
    assert "user.max_user_namespaces" in log
    assert left(box, name) == []
