"""The fast variant of `benchmarks.swaps`: two children of a server stand, and the gate flips between them.

No agent, no deploy: a gate in this process, sockets held as the keeper holds them, a flip every few
milliseconds. What it leaves out is the stop of the old child.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.programs import Program
from benchmarks.swarm import Swarm, swarm
from tests.traffic.support import Stage, stage

PAUSE = 0.005  # seconds between two flips
READY = 20.0


async def flip(program: Program, flips: int, rate: float, kept: int) -> Swarm:
    """Flip so often under load; what the clients saw. Raises TimeoutError."""
    async with AsyncExitStack() as stack:
        on = await stack.enter_async_context(stage())
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emptybox-bench-")))
        gate = on.slot_gate()
        await gate.open_ports()
        for side in (0, 1):
            await gate.prepare(side, blocking="NGINX" not in program.variables("fd"))
            slot = on.slot(gate, side).fileno()
            await stack.enter_async_context(_child(program, root / f"v{side}", f"v{side}", on, slot))
        await gate.serve(0)
        async with swarm("127.0.0.1", on.port, rate, kept) as clients:
            await clients.answered("v0", 1)
            for number in range(1, flips + 1):
                await gate.serve(number % 2)
                await asyncio.sleep(PAUSE)
            for side in (0, 1):
                seen = clients.new[f"v{side}"]
                await gate.serve(side)
                await clients.answered(f"v{side}", seen + 20)
        return clients


@asynccontextmanager
async def _child(program: Program, root: Path, version: str, on: Stage, slot: int) -> AsyncIterator[None]:
    """A child with a slot as descriptor 3, as sd_listen_fds(3) says."""
    for name, data in program.contents(version, on.port).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)
    process = subprocess.Popen(
        ["sh", "-c", f'export LISTEN_PID=$$; exec "$0" "$@" 3<&{slot}', *program.command("fd", on.port)],
        cwd=root,
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(root),
            "LISTEN_FDS": "1",
            "EMPTYBOX_VERSION": version,
            **program.variables("fd"),
        },
        pass_fds=[slot],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.send_signal(signal.Signals[f"SIG{program.stop}"])
        try:
            await asyncio.to_thread(process.wait, READY)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
