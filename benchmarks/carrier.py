"""A program: brings artifacts into a store as the agent does, and watches itself meanwhile.

It reads orders as lines of JSON and answers each with one:

    {"url", "checksum", "share"}  ->  {"seconds", "fetched", "memory_mib", "lag", "tree"}

`seconds` are from the request to the published release, synced to disk; `fetched` the bytes that came in;
`memory_mib` how far the resident set grew beyond what it was before; `lag` the longest time in seconds that
the event loop was late.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.kit.tasks import Owned, stop

TICK = 0.002  # seconds


class Late:
    """The longest time that the loop was late, in seconds."""

    def __init__(self) -> None:
        self.most = 0.0

    async def watch(self) -> None:
        """Watch for ever."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK)
            self.most = max(self.most, time.perf_counter() - began - TICK)


def resident(field: str) -> float:
    """VmRSS or VmHWM (the highest so far) of proc(5), in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


async def carry(artifacts: Artifacts, tasks: Owned, order: dict[str, Any]) -> dict[str, Any]:
    """One order."""
    algorithm, _, digest = order["checksum"].partition(":")
    spec = ArtifactSpec(url=order["url"], checksum=Checksum(algorithm=algorithm, hex=digest))
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what is now
    before, late = resident("VmRSS"), Late()
    watching = tasks.start(late.watch(), name="late")
    began = time.perf_counter()
    async with artifacts.deliver(spec, "app", share=order.get("share", False)) as delivery:
        tree = await delivery.published()
        seconds = time.perf_counter() - began
        fetched = await delivery.fetched()
    await stop(watching)
    return {
        "seconds": seconds,
        "fetched": fetched,
        "memory_mib": resident("VmHWM") - before,
        "lag": late.most,
        "tree": str(tree),
    }


async def main() -> None:
    """Take orders until there are no more."""
    root, registry = Path(sys.argv[1]), sys.argv[2]
    loop = asyncio.get_running_loop()
    async with (
        Artifacts(Store(root), insecure_registries=[registry]) as artifacts,
        Owned("carrier") as tasks,
    ):
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await carry(artifacts, tasks, json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
