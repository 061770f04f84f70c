"""The ladder down: ask, wait, kill; the whole process group; always to its end.

    running --signal to the group--> asked --group empty--> ended
                                       |
                                       +--grace over--> killed --group empty--> ended

A leader that ends first (a shell around the real program) does not cut its group short: the others have
the rest of the grace. Cancelling the caller does not stop the ladder, it only waits for its end.
"""

from __future__ import annotations

import asyncio
import signal

from agent.domain.errors import OperatorNeeded, Permanent
from agent.domain.spec import StopSpec
from agent.keeper.protocol import ChildRecord
from agent.kit.tasks import uninterrupted
from agent.process.keepers import Keeper
from agent.process.voice import stretched

STUCK = "ProcessStuck"  # the reason of a failure to end what runs
KILL_DEADLINE = 10.0  # seconds: a killed process that is still there waits for a disk or the network
LOOK_FIRST = 0.002  # seconds between looks for a group that outlives its leader: first, longest
LOOK_LONGEST = 0.1


def signal_number(name: str) -> int:
    """The number of a signal, by its name with or without SIG. Raises Permanent("SignalUnknown")."""
    try:
        return signal.Signals["SIG" + name.upper().removeprefix("SIG")].value
    except KeyError:
        raise Permanent(
            "SignalUnknown", f"there is no signal {name!r}", remedy="write TERM, INT, QUIT ..."
        ) from None


async def stop(keeper: Keeper, child: str, spec: StopSpec) -> ChildRecord:
    """Stop a child and everyone in its group; returns its record with code or signal.

    One that has ended already is no error: what is left of its group is stopped. Raises LookupError for
    an unknown child, OperatorNeeded("ProcessStuck"), KeeperLost.
    """
    return await uninterrupted(_descend(keeper, child, spec), name=f"stop {child}")


async def end_group(keeper: Keeper, child: str) -> None:
    """Kill a child and whatever is left of its group now, and wait until nobody is there.

    Raises LookupError for an unknown child, OperatorNeeded("ProcessStuck"), KeeperLost.
    """
    await uninterrupted(_kill(keeper, child), name=f"end {child}")


async def _descend(keeper: Keeper, child: str, spec: StopSpec) -> ChildRecord:
    if await keeper.signal(child, signal_number(spec.signal)):
        try:
            async with asyncio.timeout(spec.grace) as limit:
                stretch = stretched(limit)  # a program that stops may ask for more time
                await keeper.until(child, lambda record: stretch(record) or not record.running)
                await _empty(keeper, child)
        except TimeoutError:
            await _kill(keeper, child)
    return await keeper.wait(child)


async def _kill(keeper: Keeper, child: str) -> None:
    if not await keeper.signal(child, signal.SIGKILL):
        await keeper.wait(child)
        return
    try:
        async with asyncio.timeout(KILL_DEADLINE):
            await _empty(keeper, child)
    except TimeoutError:
        raise OperatorNeeded(
            STUCK,
            f"process group {keeper.children[child].pid} was killed and is still there",
            where=child,
            remedy="look for a hung disk or network mount (state D in ps)",
        ) from None


async def _empty(keeper: Keeper, child: str) -> None:
    """Wait for the leader's end, then look for the others: nothing tells of theirs."""
    await keeper.wait(child)
    pause = LOOK_FIRST
    while await keeper.signal(child, 0):
        await asyncio.sleep(pause)
        pause = min(2 * pause, LOOK_LONGEST)
