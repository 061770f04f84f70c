"""Commands: programs that run to their end (checks, migrations, hooks, tasks, exec probes).

They are children of the keeper like all others, so the agent's death ends none of them, and their last
lines are kept. Whatever they leave in their process group ends with them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.domain.errors import LATER, Failure
from agent.domain.model import new_id
from agent.domain.spec import StopSpec
from agent.keeper.client import KeeperLost
from agent.keeper.protocol import ChildRecord
from agent.kit.tasks import uninterrupted, unless
from agent.process.context import ChildContext
from agent.process.keepers import Keeper
from agent.process.stop import end_group, stop

log = logging.getLogger(__name__)

HEARING = 1.0  # seconds between two looks at what a command says
HEARD = 5  # lines
GRACE = StopSpec(signal="TERM", grace=5.0)  # for a command past its deadline, or cancelled


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended: a code or a signal; `timeout` in seconds when that was its deadline's doing."""

    code: int | None
    signal: int | None
    log: tuple[str, ...]
    seconds: float = 0.0
    timeout: float | None = None
    limit: str = ""  # the limit by which it, or a process of it, was killed, in words

    @property
    def ok(self) -> bool:
        """Exit code 0, within its time."""
        return self.code == 0 and self.timeout is None

    @property
    def later(self) -> bool:
        """Exit code 75: not failed, asks to be tried again (sysexits.h, EX_TEMPFAIL)."""
        return self.code == LATER and self.timeout is None

    @property
    def ended(self) -> str:
        """How, for people: goes after the command's name."""
        if self.timeout is not None:
            return f"did not end within {self.timeout:g} s and was stopped"
        if self.limit:
            return f"was killed by {self.limit}"
        if self.signal is not None:
            return f"was ended by signal {self.signal} ({signal.strsignal(self.signal)})"
        return f"ended with exit code {self.code}"


async def run_command(
    keeper: Keeper, *, name: str, argv: Sequence[str], context: ChildContext, timeout: float,
    heard: Callable[[Sequence[str]], None] | None = None,
) -> CommandResult:  # fmt: skip
    """Run a command to its end, at most `timeout` seconds; cancelled, it is stopped.

    `heard` is told its last lines every second. `name` is what the output and the keeper's table call it
    (migrate schema). Raises what `ChildContext.spawn` raises; how it ends is no error but the result.
    """
    child = new_id(f"{context.app}/{name}")
    context = replace(context, prefix=context.prefix or f"{context.app}/{name}")
    started = time.monotonic()
    await context.spawn(keeper, child, argv)
    late = False
    try:
        async with asyncio.timeout(timeout):
            await (keeper.wait(child) if heard is None else _wait_and_hear(keeper, child, heard))
    except TimeoutError:
        late = True
    except BaseException:
        await abandon(keeper, child, context)
        raise
    record, lines, limit = await uninterrupted(finish(keeper, child, late, context), name=f"finish {child}")
    seconds = time.monotonic() - started
    return CommandResult(record.code, record.signal, tuple(lines), seconds, timeout if late else None, limit)


async def to_its_end(
    keeper: Keeper, child: str, *, timeout: float, asked: asyncio.Event, ladder: StopSpec
) -> CommandResult:
    """Wait for the end of a command that is there, or bring it about by `ladder`.

    That is when `timeout` seconds have passed since it was started, or when `asked` is set. Cancelled, the
    command goes on. It is not forgotten. Raises LookupError, OperatorNeeded("ProcessStuck"), KeeperLost.
    """
    started = keeper.children[child].started
    record, late = None, False
    try:
        async with asyncio.timeout(max(0.0, started + timeout - time.time())):
            record = await unless(asked, keeper.wait(child), name=f"wait {child}")
    except TimeoutError:
        late = True
    if record is None:
        record = await stop(keeper, child, ladder)
    else:
        await end_group(keeper, child)
    lines = tuple(await keeper.tail(child))
    seconds = time.time() - started
    return CommandResult(record.code, record.signal, lines, seconds, timeout if late else None)


async def _wait_and_hear(keeper: Keeper, child: str, heard: Callable[[Sequence[str]], None]) -> None:
    while True:
        try:
            async with asyncio.timeout(HEARING):
                await keeper.wait(child)
            return
        except TimeoutError:
            heard(await keeper.tail(child, HEARD))


async def finish(
    keeper: Keeper, child: str, late: bool, context: ChildContext
) -> tuple[ChildRecord, list[str], str]:
    """Forget a command that has ended, and all it left; a `late` one is stopped first.

    Returns its record, its last lines, and the limit that killed it, in words.
    """
    if late:
        record = await stop(keeper, child, GRACE)
    else:
        await end_group(keeper, child)
        record = await keeper.wait(child)
    lines = await keeper.tail(child)
    limit = await context.limit_hit(child)
    await keeper.forget(child)
    return record, lines, limit


async def abandon(keeper: Keeper, child: str, context: ChildContext) -> None:
    """Stop a command nobody waits for any more; what goes wrong must not hide why."""
    try:
        await uninterrupted(finish(keeper, child, True, context), name=f"abandon {child}")
    except (Failure, KeeperLost, LookupError, TimeoutError) as error:
        log.warning("%s: %s", child, error)
