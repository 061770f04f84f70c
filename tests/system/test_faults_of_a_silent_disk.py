"""A disk that does not answer, and gives no errors: everything that writes to it waits in the kernel."""

from __future__ import annotations

import sys
from pathlib import Path

import aiohttp

from tests.kit import site
from tests.kit.box import Box, Load
from tests.kit.hanging_disk import HangingDisk
from tests.kit.operator import Operator
from tests.kit.watching import Watch, condition
from tests.kit.world import World

HASTE = {"PYTHONPATH": site.__path__[0], "HASTE": "1"}
HOLD = "echo held > $W/held; while [ ! -e $W/go ]; do sleep 0.05; done"
ENOUGH = 200  # chunks: more than the keeper keeps for a disk that is slow
# Says 64 KiB, and then that it could, while it is to talk.
TALKER = """
import os, time
world = os.environ["WORLD"]
while True:
    if os.path.exists(world + "/talk"):
        os.write(1, (b"x" * 1023 + b"\\n") * 64)
        with open(world + "/said", "a") as said:
            said.write("more\\n")
    time.sleep(0.005)
"""


async def answering(box: Box) -> str:
    """Status of the condition DiskAnswers, "" while there is no agent."""
    try:
        return str(condition(await box.status(), "DiskAnswers")["status"])
    except aiohttp.ClientError:
        return ""


async def test_all_serves_on_and_goes_on_by_itself_when_the_disk_is_silent_for_a_while(
    tmp_path: Path,
) -> None:
    with HangingDisk(tmp_path / "data") as disk:
        async with Box(tmp_path) as box:
            box._log = disk.directory / "output.log"  # which keeper, agent and programs write to, too
            world = World(box)
            talks = {"command": [sys.executable, "-S", "-c", TALKER]}
            talker = world.app("1.0", listen=None, socket=None, health=None, run=talks)
            hold = {"after": ["check"], "before": ["start"], "command": world.shell(HOLD), "timeout": "60s"}

            def apps(version: str, **parts: object) -> dict[str, object]:
                return {"web": world.app(version, **parts), "talker": talker}

            await world.commit(apps("1.0"))
            await box.start(environment=HASTE)
            await box.proven("1.0")

            async def silent() -> bool:
                return await answering(box) == "False"

            async def answers() -> bool:
                return await answering(box) == "True"

            async def talked() -> None:
                before = len(world.lines("said"))
                world.pull("talk")
                await world.said("said", before + ENOUGH)
                world.release("talk")

            async with Load(box.port) as load, Watch(box, "the disk is silent", gaps=True) as watch:
                await box.until(answers)
                agent = await box.agent_pid()
                with disk.frozen():  # at rest
                    await box.until(silent)
                    status, answer = await box.webhook(await world.commit(apps("2.0", tasks={"hold": hold})))
                    assert (status, answer["verdict"]) == (202, "accepted")
                    await talked()
                    told = await box.status()
                    assert str(disk.directory) in condition(told, "DiskAnswers")["message"]
                    assert condition(told, "SourceReachable")["status"] == "True"
                    assert (told["apps"]["web"]["state"], told["apps"]["web"]["last_failure"]) == (
                        "running",
                        None,
                    )
                    assert await box.answers() and "emptybox" in await box.metrics()
                    doctor = await Operator(box)("doctor", "--json")
                    assert [wait["why"] for wait in doctor.json["waiting"] if wait["what"] == "DiskAnswers"]
                    assert await box.agent_pid() == agent
                await world.said("held")
                await box.until(answers)
                with disk.frozen():  # in a deploy
                    world.pull("go")
                    await box.until(silent)
                    assert watch.versions == {"1.0"}
                await box.proven("2.0")
                await box.until(answers)
                assert await box.agent_pid() == agent
                with disk.frozen():  # and no agent
                    await world.kill_agent()
                    await talked()
                await box.until(answers)
                await box.webhook(await world.commit(apps("3.0")))
                await box.proven("3.0")
            assert load.failures == []
