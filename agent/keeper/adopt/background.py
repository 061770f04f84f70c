"""A program that puts itself into the background: its first process ends, another of its tree goes on.

Only of a child that is adopted can this be told. Who goes on in its place is found among the orphans that
came to the keeper (PR_SET_CHILD_SUBREAPER): who has one of its slots open, now or once it binds, and has left
its session, as daemon(7) wants it. Workers that have lost their master stay in its session.
"""

from __future__ import annotations

import os

from agent.keeper.adopt import sight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def holders(slots: Collection[int], orphans: Iterable[int]) -> list[int]:
    """Those of these processes that have one of our descriptors `slots` open, too."""
    wanted = {(status.st_ino, status.st_dev) for status in map(os.fstat, slots)}
    found = []
    for pid in orphans:
        try:
            if wanted & sight.open_files(pid):
                found.append(pid)
        except OSError:  # ended meanwhile, or not to be seen
            continue
    return found
