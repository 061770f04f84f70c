"""What is done about each bind and listen of one child's tree.

| call | socket, address | answer |
|---|---|---|
| bind | TCP, a port of the child's own | the slot takes the socket's place; the call returns 0 |
| bind | TCP, another port | goes on; the port is remembered for the message when a probe fails |
| listen | a slot | returns 0: it listens already, and what it is must not change |
| any | anything else, or not to be seen | goes on |

Several sockets of one tree on one port (workers with SO_REUSEPORT) share the slot and its queue. If
adoption itself fails, bind fails with EADDRINUSE: going on might join the slots' group.
"""

from __future__ import annotations

import errno
import os

from agent.keeper.adopt import OTHER_FAMILY, sight
from agent.keeper.adopt.notice import TreeGone, receive
from agent.keeper.adopt.trap import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agent.keeper.adopt.notice import Notice
    from agent.keeper.slots import Slots

OTHERS_MAX = 16  # other ports remembered
ANYWHERE = ("0.0.0.0", "::")
POLLED = "it had its socket in an epoll set before binding it, where the one it got is not"


class Adopter:
    """The keeper's side of one child's trap.

    `taken` are the names of ports that were taken over, `others` other TCP ports bound, `trouble` why
    a call could not be understood or answered as meant; all for the agent to tell.
    """

    def __init__(self, listener: int, wanted: Sequence[tuple[str, int, str]], slots: Slots) -> None:
        """Take over `listener`. `wanted` are (key, index, name), as in `ChildRequest.slots`."""
        self.listener = listener
        self.taken: list[str] = []
        self.others: list[int] = []
        self.trouble = ""
        self._wanted = wanted
        self._slots = slots
        _, _, _, self._listen = calls()

    def serve(self) -> bool:
        """Answer one call, if one waits; whether there is news for the agent. Raises TreeGone."""
        before = self.told()
        notice = receive(self.listener)
        if notice is not None:
            try:
                self._answer(notice)
            except OSError as error:
                if notice.valid():
                    self.trouble = error.strerror or str(error)
                notice.pass_on()
            except BaseException:  # a mistake in here must not leave the caller standing
                notice.pass_on()
                raise
        return self.told() != before

    def told(self) -> dict[str, Any]:
        """What the agent hears of it, as fields of a `ChildRecord`."""
        return {"taken": list(self.taken), "others": list(self.others), "trouble": self.trouble}

    @property
    def watching(self) -> bool:
        """Whether anybody is left in the trap."""
        return self.listener >= 0

    def close(self) -> None:
        """Give the listener up: whoever is left in the trap can bind no more (ENOSYS)."""
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1

    def _answer(self, notice: Notice) -> None:
        """As the table says. Raises OSError when the caller cannot be seen."""
        pid, fd = notice.pid, notice.arguments[0] & 0xFFFFFFFF
        if not sight.is_stream(pid, fd):
            notice.pass_on()
        elif notice.number == self._listen:
            if any(sight.same_file(pid, fd, slot) for slot in self.descriptors()):
                notice.done()
            else:
                notice.pass_on()
        else:
            found = sight.address(pid, notice.arguments[1], notice.arguments[2] & 0xFFFFFFFF)
            match = self._match(*found) if found is not None else None
            if match is not None:
                self._adopt(notice, fd, match, found[0] if found is not None else "")
                return
            if found is not None and found[1] and len(self.others) < OTHERS_MAX:
                self.others += [found[1]] if found[1] not in self.others else []
            notice.pass_on()

    def _adopt(self, notice: Notice, fd: int, match: tuple[str, int, str], host: str) -> None:
        key, index, name = match
        address = self._slots.address(key)
        try:
            slot = self._slots.descriptor(key, index)
            flags = sight.open_flags(notice.pid, fd)
            polled = sight.is_polled(notice.pid, fd)
            if not notice.valid():
                return
            os.set_blocking(slot, not flags & os.O_NONBLOCK)
            notice.replace(fd, slot, flags & os.O_CLOEXEC)
        except OSError as error:
            self.trouble = f"its socket could not be replaced: {error.strerror}"
            notice.refuse(errno.EADDRINUSE)
            return
        notice.done()
        if polled:
            self.trouble = POLLED
        elif address is not None and ":" in address[0] and ":" not in host:
            self.trouble = OTHER_FAMILY
        if name not in self.taken:
            self.taken.append(name)

    def descriptors(self) -> list[int]:
        """Ours of the slots it may get."""
        return [self._slots.descriptor(key, index) for key, index, _ in self._held()]

    def _held(self) -> list[tuple[str, int, str]]:
        """Those wanted whose ports are still open."""
        return [slot for slot in self._wanted if self._slots.address(slot[0]) is not None]

    def _match(self, host: str, port: int) -> tuple[str, int, str] | None:
        """The slot for an address: the same one, else one of which either means every address."""
        best: tuple[int, tuple[str, int, str]] | None = None
        for slot in self._held():
            address = self._slots.address(slot[0])
            if address is None or address[1] != port:
                continue
            if address[0] == host:
                rank = 0
            elif host in ANYWHERE or address[0] in ANYWHERE:
                rank = 1
            elif host.startswith("127.") or host == "::1":
                rank = 2
            else:
                continue
            if best is None or rank < best[0]:
                best = rank, slot
        return best[1] if best is not None else None


__all__ = ["Adopter", "TreeGone"]
