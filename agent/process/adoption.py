"""Whether programs can be adopted on this host, and what a program did instead of binding its port."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Collection, Mapping

from agent.domain.model import new_id
from agent.keeper.adopt import OTHER_FAMILY
from agent.keeper.client import KeeperClient, SpawnFailed
from agent.keeper.protocol import ChildRecord, ChildRequest

log = logging.getLogger(__name__)

DEADLINE = 10.0  # seconds for the trial: it takes a moment
NOTE = "adopt"  # with the keeper: the kernel and the sandbox are the same for all its agents
POSSIBLE = "possible"
_TRIAL = "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen()"


class Adoption:
    """Finds out once, by adopting a small program, and remembers it for the keeper's life."""

    def __init__(self, keeper: KeeperClient) -> None:
        self._keeper = keeper
        self._asking = asyncio.Lock()

    @property
    def known(self) -> str:
        """The obstacle, as far as it was found out."""
        return self._keeper.notes.get(NOTE, POSSIBLE).removeprefix(POSSIBLE)

    async def obstacle(self) -> str:
        """Why no program can be adopted here; "" when they can. Raises KeeperLost."""
        async with self._asking:
            known = self._keeper.notes.get(NOTE)
            if known is None:
                known, sure = await self._try()
                if sure:
                    await self._keeper.note(NOTE, known or POSSIBLE)
                if known:
                    log.warning("socket: adopt is not possible here: %s", known)
        return "" if known == POSSIBLE else known

    async def _try(self) -> tuple[str, bool]:
        """Let a program bind a port that a slot has: why it did not, or ""; and if that is for good."""
        name = new_id("adopt")
        try:
            for sock in await self._keeper.open(name, "127.0.0.1", 0, 1, 1):
                sock.close()
            argv = [sys.executable, "-I", "-S", "-c", _TRIAL, str(self._keeper.groups[name].port)]
            slots = [(name, 0, name)]
            await self._keeper.spawn(ChildRequest(name, argv, {}, "/", slots=slots, adopt=True))
            try:
                async with asyncio.timeout(DEADLINE):
                    record = await self._keeper.wait(name)
            finally:
                await self._keeper.signal(name, 9)
                await self._keeper.wait(name)
                await self._keeper.forget(name)
        except SpawnFailed as error:
            refused = error.stage == "adopt"
            what = "the kernel or a sandbox refuses seccomp notifications" if refused else "a trial failed"
            return f"{what}: {os.strerror(error.errno)}", refused
        except (OSError, TimeoutError) as error:
            return f"a trial failed: {error}", False
        finally:
            await self._keeper.close_slots(name)
        if record.taken == [name]:
            return "", True
        return f"a trial program could not be dealt with: {record.trouble or 'it was not seen to bind'}", True


def not_bound(record: ChildRecord, ports: Mapping[str, int]) -> str:
    """What a child that is to be adopted did instead of binding its ports, for people; "" if it bound them.

    `ports` are its public ports by name.
    """
    missing = [str(number) for name, number in ports.items() if name not in record.taken]
    if not missing:
        return ""
    wanted = f"{'its port' if len(missing) == 1 else 'its ports'} {', '.join(missing)}"
    if record.trouble:
        return f"the program's calls could not be dealt with ({record.trouble}), so it did not get {wanted}"
    if record.others:
        return f"the program listens on {', '.join(map(str, record.others))}, not on {wanted}"
    return f"the program does not listen on {wanted}"


def way_out(record: ChildRecord) -> str:
    """What to do about a child's trouble with the sockets it got, if that is why it failed."""
    if record.trouble == OTHER_FAMILY:
        return "if that is why: let listen have an IPv4 address for it, 0.0.0.0 for all"
    return "if that is why: write socket: relay, and let it listen on $PORT; or socket: fd, if it can"


def collision(record: ChildRecord, beside: Collection[ChildRecord]) -> str:
    """Which private port two versions side by side both want, for people; "" when there is none."""
    taken = {port for other in beside for port in other.others}
    ports = ", ".join(str(port) for port in record.others if port in taken)
    return f"it also binds port {ports}, which the running version has" if ports else ""
