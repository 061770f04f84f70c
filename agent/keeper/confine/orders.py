"""A confinement as it was ordered, carried out in three parts: as root, as the user, and told.

An order (JSON, in a `ChildRequest`):

| key | meaning |
|---|---|
| capabilities | numbers that may be kept |
| calls | `standard` or `strict`: what seccomp denies; without it there are namespaces at most |
| landlock | see `landlock.ruleset` |
| namespaces | of `spaces.FLAGS` |
| private, keep, root | see `spaces.furnish` |
| join | a child (the keeper makes it its pid): its namespaces of these kinds instead of new ones |
| must | parts without which there is no start |
"""

from __future__ import annotations

import errno
import os

from agent.keeper.confine import capabilities, landlock, seccomp, spaces, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

NO_NEW_PRIVS = 38


def prepare(order: Mapping[str, Any]) -> None:
    """In the keeper: have ready what all copies of it can share. Never raises."""
    if "calls" in order:
        landlock.version()
        capabilities.known()
        try:
            seccomp.prepared(order["calls"])
        except OSError:
            pass  # the child will say so


class Confinement:
    """One, being carried out by the process it is for.

    `stage` names what is being done, `ids` are uid and gid in the namespace of the keeper's users.
    """

    def __init__(self, order: Mapping[str, Any], stage: list[str], ids: tuple[int, int]) -> None:
        self._ids = ids
        self.held: list[str] = []
        self.lacking: dict[str, str] = {}
        self._order = order
        self._stage = stage
        self._ruleset = -1
        self._locked: list[str] = []  # the parts that the ruleset stands for

    def furnish(self) -> None:
        """In new namespaces, or those of another, with all rights. Raises OSError."""
        names, private = self._order.get("namespaces", ()), self._order.get("private", ())
        if not names:
            return
        self._stage[0] = "confine namespaces"
        if other := self._order.get("join"):
            spaces.enter(other, names)
        else:
            keep, root = self._order.get("keep", ()), bool(self._order.get("root"))
            spaces.furnish(names, private, keep, self._ids, root=root)
        self.held += [name for name in names if name not in ("mount", "user")]
        self.held += [f"private {what}" for what in private]

    def begin(self) -> None:
        """What needs the rights that will be given up. Raises OSError for a part that must be there."""
        if "calls" not in self._order:
            return
        self._try("capabilities", lambda: capabilities.bound(self._order["capabilities"]))
        if (wish := self._order.get("landlock")) is not None:
            held, lacking = landlock.held(wish)
            for part, reason in lacking.items():
                self._lacks(part, reason)
            self._locked = held
            if held:
                self._lock(lambda: self._make(wish))

    def end(self) -> None:
        """As who the program runs as, last of all. Raises OSError for a part that must be there."""
        if "calls" not in self._order:
            return
        self._try("no_new_privs", lambda: system.prctl(NO_NEW_PRIVS, 1))
        if "capabilities" not in self.lacking:
            self._try("capabilities", lambda: capabilities.limit(self._order["capabilities"]), tell=False)
        if self._ruleset >= 0:
            if self._lock(lambda: landlock.restrict(self._ruleset)):
                self.held += self._locked
            os.close(self._ruleset)
        self._try("calls", lambda: seccomp.install(self._order["calls"]))

    def _make(self, wish: Mapping[str, Any]) -> None:
        self._ruleset = landlock.ruleset(wish)

    def _lock(self, act: Callable[[], object]) -> bool:
        """Do something about the ruleset: it is in force with all its parts, or with none."""
        first, *others = self._locked
        done = self._try(first, act, tell=False)
        for part in () if done else others:
            self._lacks(part, self.lacking[first])
        return done

    def _try(self, part: str, act: Callable[[], object], *, tell: bool = True) -> bool:
        self._stage[0] = f"confine {part}"
        try:
            act()
        except OSError as error:
            if part in self.held:
                self.held.remove(part)
            self._lacks(part, error.strerror or str(error), error)
            return False
        if tell:
            self.held.append(part)
        return True

    def _lacks(self, part: str, reason: str, error: OSError | None = None) -> None:
        if part in self._order.get("must", ()):
            self._stage[0] = f"confine {part}"
            raise error or OSError(errno.EOPNOTSUPP, reason)
        self.lacking[part] = reason
