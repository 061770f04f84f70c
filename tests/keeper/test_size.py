from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.kit.keepers import KeeperProcess, python, said

HEAVY = {
    "asyncio",
    "dataclasses",
    "typing",
    "inspect",
    "ssl",
    "logging",
    "subprocess",
    "argparse",
    "agent.keeper.protocol",
}


def test_the_keeper_imports_nothing_heavy() -> None:
    code = "import sys, agent.keeper.main\nprint(*sys.modules)"
    # -S: what a virtual environment's start-up files import is not the keeper's doing.
    root = Path(__file__).parents[2]
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=root, check=True, capture_output=True, text=True
    ).stdout.split()
    assert not HEAVY & set(loaded)
    ours = {name for name in loaded if name.partition(".")[0] in ("agent", "webhook")}
    names = "main loop manager reactor link verbs children spawn output outlets scribe slots wire "
    names += "notify attendant vigil "
    names += "confine confine.capabilities confine.init confine.landlock confine.orders confine.seccomp "
    names += "confine.spaces confine.system "
    names += "adopt adopt.adopter adopt.background adopt.notice adopt.sight adopt.trap"
    assert ours == {"agent", "agent.keeper"} | {f"agent.keeper.{name}" for name in names.split()}


async def test_the_keepers_memory_is_told(kept: KeeperProcess) -> None:
    client = (await kept.agent()).client
    await client.spawn(python("x", "import signal; print('ready'); signal.pause()"))
    await said(client, "x", "ready")
    rollup = Path(f"/proc/{kept.pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in rollup}
    print(f"keeper: PSS {sizes['Pss']:.1f} MiB, RSS {sizes['Rss']:.1f} MiB")
    assert sizes["Pss"] > 0
