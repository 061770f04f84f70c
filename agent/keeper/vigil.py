"""Whether the agent's loop turns: asked now and then, and what becomes of an agent that does not answer.

    answers --asked, no answer--> silent --asked again, UNANSWERED_MAX times--> its stacks, then KILL

One that was stopped, spins, or never says its first word is killed and started again, which costs no
application anything: children and ports are the keeper's. An agent that is merely slow has time, and a
machine that slept or is so busy that this loop is late itself is no proof of anything: then the count
begins anew.
"""

from __future__ import annotations

import contextlib
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.keeper.link import Link
    from agent.keeper.loop import Keeper

PING = 15.0  # seconds between two questions, while they are answered
AGAIN = 3  # so many times as often while they are not
UNANSWERED_MAX = 3  # questions in a row that a living agent may leave open
BIRTH_DEADLINE = 120.0  # seconds until an agent's first word, at first
DOUBLED_MAX = 5  # times that is doubled: the machine may just be very slow
LATE = 2.0  # seconds this loop may be late itself, for a silence to count
LAST_WORDS = 1.0  # seconds between the signal at which an agent tells where it is, and KILL


def watch(keeper: Keeper, due: float = 0.0) -> None:
    """Tell the manager that the keeper lives, ask whether the agent does, and do so again."""
    manager, link, now = keeper.manager, keeper.link, time.monotonic()
    pause = min(PING, manager.watchdog / 2 or PING)
    if manager.watchdog:
        manager.alive()
    if link is not None:
        if due and now - due > LATE:
            link.silent_since, link.unanswered = now, 0
        if _hangs(link, now, keeper.deaths.unborn):
            keeper.outlets.say(f"the agent has not answered for {now - link.silent_since:.0f} s: killing it")
            pause = _end(keeper, link)
        elif link.greeted:
            link.silent_since = link.silent_since if link.unanswered else now
            link.unanswered += 1
            link.send({"event": "ping"})
            pause = pause if link.unanswered == 1 else pause / AGAIN
    keeper.reactor.at("vigil", pause, lambda: watch(keeper, now + pause))


def _hangs(link: Link, now: float, unborn: int) -> bool:
    """Each agent in a row that never got to its first word gives the next one twice the time."""
    if not link.greeted:
        return now - link.silent_since >= BIRTH_DEADLINE * (1 << min(unborn, DOUBLED_MAX))
    return link.unanswered >= UNANSWERED_MAX


def _end(keeper: Keeper, link: Link) -> float:
    """Let it write where it is (see `agent.__main__`), then kill it; returns how long that takes at most."""
    link.hung = True
    with contextlib.suppress(OSError):
        link.kill(signal.SIGUSR2)
    keeper.reactor.at("last words", LAST_WORDS, lambda: _kill(keeper, link))
    return 2 * LAST_WORDS


def _kill(keeper: Keeper, link: Link) -> None:
    if keeper.link is link:
        link.kill(signal.SIGKILL)
