"""Try the code that is installed now before making way for it.

`emptybox upgrade` ends this agent so that the keeper starts the next one from what is installed by then.
Children, slots and notes stay with the keeper. The keeper itself stays as it is until the box restarts,
so a successor that speaks another protocol, or knows an older data format, is refused here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Collection, Mapping
from typing import Any

from agent.deploy.lane import Lane
from agent.deploy.layout import FORMAT
from agent.domain.control import NotPossible

log = logging.getLogger(__name__)

RUN_DEADLINE = 900.0  # seconds that runs under way are given before the agent makes way
DEADLINE = 30.0  # seconds the new code has to say who it is
ANSWER_MAX = 4096  # bytes


async def try_successor(protocol: int) -> Mapping[str, Any]:
    """Start the installed code just to tell about itself; returns version, protocol and format.

    Args:
        protocol: the version the keeper speaks.

    Raises NotPossible when it does not start, or could not go on from here.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "agent", "_agent", "--introduce",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE):
            answer, errors = await process.communicate()
    except TimeoutError:
        raise NotPossible(f"the installed code said nothing within {DEADLINE:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise NotPossible(f"the installed code does not start: {last[0][:300]}")
    try:
        found = json.loads(answer[:ANSWER_MAX])
        newer, speaks, knows = str(found["version"]), int(found["protocol"]), int(found["format"])
    except (ValueError, KeyError, TypeError):
        raise NotPossible("the installed code does not introduce itself as an emptybox") from None
    if speaks != protocol:
        raise NotPossible(f"version {newer} speaks another protocol with the keeper: restart the whole box")
    if knows < FORMAT:
        raise NotPossible(f"version {newer} is older than this data directory")
    return {"version": newer, "protocol": speaks, "format": knows}


async def hand_on(lanes: Collection[Lane]) -> None:
    """Make way for the next agent: let runs under way end, touch no child, leave the ports to the keeper."""
    log.info("making way for the next agent")
    try:
        async with asyncio.timeout(RUN_DEADLINE):
            for lane in lanes:
                await lane.idle()
    except TimeoutError:
        log.warning("a run takes too long; the next agent finds it interrupted")
    for lane in lanes:
        await lane.detach()
