"""A program that puts itself into the background: its first process ends, another of its tree goes on.

Only of a child that is adopted can this be told. Who goes on in its place is found among the orphans that
came to the keeper (PR_SET_CHILD_SUBREAPER): whoever has left the child's session (daemon(7)) and has one of
its slots open, now or once it binds. Workers that have lost their master are still in its session.
"""

from __future__ import annotations

import os

from agent.keeper.adopt import sight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def heir(slots: Collection[int], orphans: Iterable[int], session: int) -> tuple[int, int] | None:
    """Pid and group of an orphan outside of `session` that has one of our descriptors `slots` open."""
    wanted = {(status.st_ino, status.st_dev) for status in map(os.fstat, slots)}
    for pid in orphans:
        try:
            if os.getsid(pid) != session and wanted & sight.open_files(pid):
                return pid, os.getpgid(pid)
        except OSError:  # ended meanwhile, or not to be seen
            continue
    return None
