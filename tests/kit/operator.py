"""An operator at a terminal: the real command line, asking the agent of a `Box`.

operator = Operator(box)
told = await operator("status", "--json")
assert told.code == 0 and told.json["apps"]["web"]["state"] == "running"
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from tests.kit.box import Box

DEADLINE = 60.0


@dataclass(frozen=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


async def run(*words: str, environment: dict[str, str] | None = None, directory: str = "/") -> Told:
    """Run `emptybox` with these words, in a plain environment."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EMPTYBOX_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "agent", *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**plain, **(environment or {})},
        cwd=directory,
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    assert process.returncode is not None
    return Told(process.returncode, out.decode(), err.decode())


class Operator:
    """Asks the agent of one box, found by its data directory."""

    def __init__(self, box: Box) -> None:
        self._box = box

    async def __call__(self, *words: str, environment: dict[str, str] | None = None) -> Told:
        """Run one command to its end."""
        return await run(*words, environment={"EMPTYBOX_DATA": str(self._box.data), **(environment or {})})
