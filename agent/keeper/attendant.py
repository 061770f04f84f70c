"""Attends to what children say of themselves: hears it, tells the agent, ends who falls silent."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from agent.keeper.notify import belongs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.keeper.children import Child
    from agent.keeper.loop import Keeper

SPACING = 0.1  # seconds between two words to the agent about one child
ABORTING = 5.0  # seconds between ABRT and KILL for one that fell silent


def attend(keeper: Keeper, child: Child) -> None:
    """Hear a child that was just started, if it has a way to say something."""
    if child.notices is not None:
        keeper.reactor.watch(child.notices.fd, call=lambda: _hear(keeper, child))
        if child.announces >= 0:
            keeper.reactor.watch(child.announces, call=lambda: _announced(keeper, child))


def dismiss(keeper: Keeper, child: Child) -> None:
    """Hear it no more."""
    keeper.reactor.forget(*(f"{what} {child.name}" for what in ("watchdog", "news", "silent")))
    if child.notices is not None:
        keeper.reactor.watch(child.notices.fd, 0)
        child.notices.close()
    _close(keeper, child)


def main_of(child: Child, orphans: Collection[int]) -> int:
    """Who goes on in the place of a leader that has ended, as MAINPID said; 0: nobody."""
    main = child.notices.main if child.notices is not None else 0
    return main if main in orphans and main != child.pid else 0


def target(child: Child) -> int:
    """Whom a signal for the program alone is for: the process it named, while that is its own."""
    main = child.notices.main if child.notices is not None else 0
    return main if main and belongs(main, child.pid, child.session) else child.pid


def _hear(keeper: Keeper, child: Child) -> None:
    notices = child.notices
    if notices is None:
        return
    news = notices.hear(child.pid, child.session)
    _watch(keeper, child)
    if news:
        _tell(keeper, child)


def _announced(keeper: Keeper, child: Child) -> None:
    """Something came through its descriptor: a newline says that it is ready."""
    try:
        data = os.read(child.announces, 4096)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    if child.notices is not None and b"\n" in data:
        child.notices.said_ready()
        _watch(keeper, child)
        _tell(keeper, child)
    if b"\n" in data or not data:
        _close(keeper, child)


def _close(keeper: Keeper, child: Child) -> None:
    if child.announces >= 0:
        keeper.reactor.watch(child.announces, 0)
        os.close(child.announces)
        child.announces = -1


def _tell(keeper: Keeper, child: Child) -> None:
    """At once, or with the next word if there was one just now."""
    timer = f"news {child.name}"
    if keeper.reactor.waits(timer):
        return
    wait = child.told + SPACING - time.monotonic()
    if wait > 0:
        keeper.reactor.at(timer, wait, lambda: _say(keeper, child))
    else:
        _say(keeper, child)


def _say(keeper: Keeper, child: Child) -> None:
    child.told = time.monotonic()
    keeper.tell("changed", child)


def _watch(keeper: Keeper, child: Child) -> None:
    """See to it that somebody looks when its watchdog is over."""
    assert child.notices is not None
    left = child.notices.overdue()
    timer = f"watchdog {child.name}"
    if child.notices.silent or left == float("inf") or (left > 0 and keeper.reactor.waits(timer)):
        return
    keeper.reactor.at(timer, max(0.0, left), lambda: _look(keeper, child))


def _look(keeper: Keeper, child: Child) -> None:
    notices = child.notices
    if notices is None or not child.running:
        return
    if notices.overdue() > 0:
        _watch(keeper, child)
        return
    notices.silent = True
    keeper.outlets.say(f"{child.name} has given no sign of life for {notices.watchdog:g} s: ending it")
    _say(keeper, child)
    _kill(child, signal.SIGABRT)
    keeper.reactor.at(f"silent {child.name}", ABORTING, lambda: _kill(child, signal.SIGKILL))


def _kill(child: Child, number: int) -> None:
    with contextlib.suppress(OSError):
        child.kill(number)
