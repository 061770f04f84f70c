"""The whole agent as in a container: not root, no capabilities, process 1, one directory to write to.

The real agent lives in mount and pid namespaces of its own: every mount is read-only but the data
directory and a small /tmp. It is user 65534 without a capability and without a way to get one. What it
runs from (interpreter, libraries, these sources) is bound below /tmp, where that user can enter: on a
developer's machine they may lie in a home that is closed to others.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.swarm import Swarm, swarm
from tests.kit.box import Box
from tests.kit.proc import agent_below, facts, writable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        (os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv")))) and "CI" not in os.environ,
        reason="needs the rights of root, unshare and setpriv",
    ),
]
MODES = ("fd", "adopt")
NOBODY = 65534
RUNTIME = Path("/tmp/runtime")
PYTHON = str(RUNTIME / "python/bin" / f"python3.{sys.version_info.minor}")
LIBRARIES = f"{RUNTIME}/python/lib"  # an interpreter may have most of itself there

# $1 the box's directory, $2 the interpreter's, $3 its packages, $4 these sources; the rest is the command.
CONTAINER = f"""
set -e
box=$1 python=$2 packages=$3 sources=$4; shift 4
mount --make-rprivate /
new=$box/new; mkdir $new
mount -t tmpfs -o size=16m,mode=1777 tmpfs $new
for place in python packages sources; do
    mkdir -p $new/runtime/$place
    eval "mount --bind \\$$place $new/runtime/$place"
done
mkdir -p "$new/${{box#/tmp/}}"
mount --bind "$box" "$new/${{box#/tmp/}}"
mount --bind "$box/data" "$new/${{box#/tmp/}}/data"
mount -t proc proc /proc
cut -d ' ' -f 5 /proc/self/mountinfo | while read place; do
    case "$place" in
        $new|*/data|/proc|/proc/*|/dev|/dev/*|/sys|/sys/*) ;;
        *) mount -o remount,bind,ro "$place" ;;
    esac
done
mount -n --move $new /tmp
cd /tmp
export LD_LIBRARY_PATH={LIBRARIES} PYTHONPATH={RUNTIME}/sources:{RUNTIME}/packages
exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --no-new-privs \\
    --bounding-set=-all --inh-caps=-all --ambient-caps=-all -- "$@"
"""


class Container(Box):
    """A box in a container."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.data.mkdir()
        os.chown(self.data, NOBODY, NOBODY)
        directory.chmod(0o755)
        places = [sys.base_prefix, sysconfig.get_path("purelib"), str(Path(__file__).parents[2])]
        self.wrapper = [
            "unshare", "--mount", "--pid", "--fork", "--kill-child",
            "sh", "-c", CONTAINER, "sh", str(directory), *places,
        ]  # fmt: skip

    def command(self, verb: str = "run") -> list[str]:
        return [PYTHON if part == sys.executable else part for part in super().command(verb)]

    def state(self, version: str, mode: str = "good", **parts: Any) -> dict[str, Any]:
        run = {"command": [PYTHON, "-S", "bin/web"]}
        health = {"http": "/healthz", "interval": "100ms", "deadline": "10s", "probation": "200ms"}
        env = {"LD_LIBRARY_PATH": LIBRARIES}
        return super().state(version, mode, run=run, env=env, health=health, **parts)

    def first(self) -> int:
        """The container's process 1, as seen from outside."""
        assert self.process is not None
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def agent(self) -> int:
        """The agent below it, likewise."""
        return agent_below(self.first())

    async def stop(self, number: int = signal.SIGTERM) -> int | None:
        """A container is stopped by a signal to its process 1."""
        if self.process is None:
            return None
        if self.process.returncode is None:
            os.kill(self.first(), number)
        code = await self.ended()
        self.process = None
        return code


@pytest.fixture
async def container() -> AsyncIterator[Container]:
    directory = Path(tempfile.mkdtemp(prefix="emptybox-", dir="/tmp"))
    try:
        async with Container(directory) as box:
            yield box
            print("\n".join(box.output[-200:]))  # shown when the test fails
    finally:
        shutil.rmtree(directory)


async def swapped(box: Container, clients: Swarm, mode: str, versions: list[str]) -> None:
    """Deploy each and let it answer."""
    for version in versions:
        await box.deploy(version, push=True, socket=mode)
        await box.proven(version)
        await clients.answered(version, 50)


@pytest.mark.parametrize("mode", MODES)
async def test_an_unprivileged_container_deploys_and_swaps_under_load_without_a_loss(
    container: Container, mode: str
) -> None:
    box = container
    await box.deploy("1.0", socket=mode)
    await box.start()
    await box.proven("1.0")
    for pid in (box.first(), box.agent()):
        now = facts(pid)
        assert now["Uid"].split() == 4 * [str(NOBODY)]
        assert {now[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert now["NoNewPrivs"] == "1"
        assert writable(pid) == {"/tmp", str(box.data)}
    assert facts(box.first())["NSpid"].split()[-1] == "1"
    async with swarm("127.0.0.1", box.port, rate=200) as clients:
        await clients.answered("1.0", 50)
        await swapped(box, clients, mode, ["2.0", "3.0"])
        child = (await box.app())["child"]["pid"]
        agent = box.agent()
        os.kill(agent, signal.SIGKILL)

        async def another() -> bool:
            try:
                return box.agent() != agent and await box.answers()
            except StopIteration:
                return False

        await box.until(another)
        app = await box.proven("3.0")
        assert app["child"]["pid"] == child
        await swapped(box, clients, mode, ["4.0"])
    assert set(clients.new) == {"1.0", "2.0", "3.0", "4.0"}
    assert await box.stop() == 0
