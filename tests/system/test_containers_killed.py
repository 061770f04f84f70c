"""kill -9 of agent, keeper and runtime in the middle of a container's create, start and stop; real runc.

At each point something is held, the victim killed, and the hold ended; then the app runs, and of what was
under way nothing is left: no mount, control group, namespace, directory or process. A stop has no runtime.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box
from tests.kit.containers import artifact, bundles, groups, left, mounts, need, processes, shell

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs root"),
]

# Takes until it is let go to end when it is asked to.
WORKER = """
trap 'touch /data/ending; while [ -e /data/hold ]; do sleep 0.05; done; exit 0' TERM
while :; do sleep 0.1 & wait $!; done
"""
# Creates and starts as runc's `run` does. In the middle of a create it stops runc, once that has made its
# state; between create and start it waits itself. Whom it holds is in `at`; the hold ends with `hold`.
RUNTIME = """#!/bin/sh
general=
while [ "$1" != run ]; do general="$general $1"; shift; done
shift 2  # run --detach
for name; do :; done
held() {{
  echo "$1" > {place}/.at && mv {place}/.at {place}/at
  while [ -e {place}/hold ]; do sleep 0.02; done
}}
point=$(cat {place}/point)
if [ "$point" = create ]; then
  {runc} $general create "$@" &
  until [ -e "state/$name/exec.fifo" ] || ! kill -0 $! 2> /dev/null; do :; done
  kill -STOP $!
  held $!
  kill -CONT $! 2> /dev/null
  wait $!
  code=$?
  [ $code -lt 128 ] || kill -9 $$
  [ $code = 0 ] || exit $code
else
  {runc} $general create "$@" || exit
fi
[ "$point" != start ] || held $$
exec {runc} $general start "$name"
"""


class Stage:
    """One app of limits, so that it has control groups, and a runtime that can be held."""

    def __init__(self, box: Box, place: Path) -> None:
        need("runc", "busybox")
        self.box, self.place = box, place
        self.name = f"app-{secrets.token_hex(4)}"
        self.dirs = box.data / "apps" / self.name / "dirs/state"
        runtime = place / "runtime"
        runtime.write_text(RUNTIME.format(place=place, runc=shutil.which("runc", path="/usr/sbin:/usr/bin")))
        runtime.chmod(0o755)
        box.settings["--container-runtime"] = str(runtime)
        self.hold_at("")

    def hold_at(self, point: str) -> None:
        """The next that comes to this point waits there."""
        (self.place / "at").unlink(missing_ok=True)
        (self.place / "point").write_text(point)
        if point:
            (self.place / "hold").touch()

    async def deploy(self, version: str) -> None:
        """Wish for a version, and tell."""
        app: dict[str, Any] = {
            "version": version,
            "artifact": artifact(self.box, shell(version=version)),
            "run": {"command": ["sh", "-c", WORKER], "driver": "oci", "limits": {"memory": "64M"}},
            "health": {"alive": "100ms", "deadline": "20s", "probation": "100ms"},
            "dirs": {"state": "data"},
        }
        commit = await self.box.commit({"schema": 1, "apps": {self.name: app}})
        if self.box.process is not None:
            await self.box.webhook(commit)

    async def held(self) -> int:
        """Until somebody is held; whom to kill for a dead runtime."""
        await self.box.until(lambda: there(self.place / "at"))
        return int((self.place / "at").read_text())

    async def kill(self, victim: str, runtime: int) -> None:
        """Kill it; with the keeper goes everything, and it is started again."""
        assert self.box.process is not None
        if victim == "keeper":
            self.box.process.kill()
            await self.box.ended()
            await self.box.until(lambda: nobody(self.name))
        else:
            os.kill(runtime if victim == "runtime" else await self.box.agent_pid(), signal.SIGKILL)
        self.hold_at("")
        (self.place / "hold").unlink(missing_ok=True)
        (self.dirs / "hold").unlink(missing_ok=True)
        if victim == "keeper":
            await self.box.start()

    async def runs_alone(self, version: str) -> None:
        """Until it runs, and nothing is there but what belongs to it."""
        await self.box.app_is(self.name, state="running", good__version=version, run=None)

        async def alone() -> bool:
            empty = [path for path in groups(self.name) if not Path(path, "cgroup.procs").read_text()]
            return not empty and len(bundles(self.box)) == 1 and len(mounts(self.box)) == 1

        await self.box.until(alone)


async def there(path: Path) -> bool:
    return path.exists()


async def nobody(name: str) -> bool:
    return not processes(name)


@pytest.mark.parametrize("victim", ["runtime", "agent", "keeper"])
async def test_nothing_is_left_of_a_create_a_start_and_a_stop_whoever_is_killed_in_the_middle_of_it(
    box: Box, tmp_path: Path, victim: str
) -> None:
    stage = Stage(box, tmp_path)
    stage.hold_at("create")
    await stage.deploy("1.0")
    await box.start()
    await stage.kill(victim, await stage.held())
    await stage.runs_alone("1.0")

    stage.hold_at("start")
    await stage.deploy("2.0")
    await stage.kill(victim, await stage.held())
    await stage.runs_alone("2.0")

    if victim != "runtime":
        (stage.dirs / "ending").unlink(missing_ok=True)
        (stage.dirs / "hold").touch()
        await stage.deploy("3.0")
        await box.until(lambda: there(stage.dirs / "ending"))
        await stage.kill(victim, 0)
        await stage.runs_alone("3.0")
    assert await box.stop() == 0
    assert processes(stage.name) == []
    assert left(box, stage.name) == []
