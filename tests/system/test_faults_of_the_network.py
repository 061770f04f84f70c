"""A network that fails between the agent and its repository: what serves goes on, no push is lost, and a
cold start needs nobody."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.kit.box import Box, Load
from tests.kit.faulty import Faulty
from tests.kit.world import World

FAULTS = ("reset", "dripping", "half-open")


async def test_no_push_is_lost_whatever_the_network_does(box: Box) -> None:
    address = urlsplit(box.repository.url)
    assert address.port is not None
    async with Faulty(address.port) as network:
        box.settings["--repo"] = f"http://127.0.0.1:{network.port}{address.path}"
        box.settings["--poll"] = "10m"  # what is found is not found by polling
        world = World(box)
        await world.running()
        async with Load(box.port) as load:
            for number, fault in enumerate(FAULTS, start=2):
                await network.become(fault)
                met = network.met
                commit = await world.deploy(f"{number}.0")
                status, _ = await box.webhook(commit)
                assert status == 202

                async def noticed(met: int = met) -> bool:
                    return network.met > met

                await box.until(noticed)
                assert (await box.app())["current"]["version"] == f"{number - 1}.0"
                await network.become("")
                await box.proven(f"{number}.0")
        assert load.failures == []

        await world.kill_everything()
        await network.become("silent")
        newest = f"{len(FAULTS) + 2}.0"
        await world.deploy(newest)  # announced by nobody
        await box.start()
        await box.serving(f"{len(FAULTS) + 1}.0")
        await network.become("")
        await box.proven(newest)
        await box.stop()
