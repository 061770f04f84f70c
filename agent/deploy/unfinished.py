"""Runs that had no end when the last agent died, and the syncs that wait for theirs.

A sync that was told as on probation is told again when the last of its apps has its last word; one that
was still running then has been told as interrupted, and that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from agent.deploy.journal_rows import UnfinishedRun
from agent.deploy.settlement import Settlement
from agent.deploy.wish import Wish
from agent.domain.events import SyncFinished
from agent.domain.model import RunResult, SyncResult
from agent.domain.spec import AppSpec


class Unfinished:
    """Hands each run to whoever recovers its app. `tell` is told the ends of syncs."""

    def __init__(self, runs: Sequence[UnfinishedRun], tell: Callable[[SyncFinished], None]) -> None:
        self._runs = list(runs)
        self._settlements: dict[str, Settlement] = {}
        for run in runs:
            apps = [other.app for other in runs if other.sync == run.sync]
            waited_for = run.sync_result is SyncResult.PROBATION
            self._settlements[run.sync] = Settlement(
                run.sync, run.commit, apps, tell if waited_for else lambda _: None
            )

    @property
    def apps(self) -> list[str]:
        """Whose runs were under way, or on probation, and nobody has taken yet."""
        ended = RunResult.INTERRUPTED
        return list(dict.fromkeys(run.app for run in self._runs if run.result is not ended))

    def take(self, app: str) -> list[UnfinishedRun]:
        """The runs of an app, oldest first; they are the caller's from now on."""
        taken = [run for run in self._runs if run.app == app]
        self._runs = [run for run in self._runs if run.app != app]
        return taken

    def rest(self, known: Collection[str]) -> list[UnfinishedRun]:
        """The runs of all apps but these: nobody recovers them."""
        apps = dict.fromkeys(run.app for run in self._runs if run.app not in known)
        return [run for app in apps for run in self.take(app)]

    @staticmethod
    def nobodys(spec: AppSpec, commit: str) -> Wish:
        """A wish that nobody waits for: of a release that serves, and the journal does not know."""
        return Wish(spec, commit, Settlement("", commit, [spec.name], lambda _: None))

    def settlement(self, run: UnfinishedRun) -> Settlement:
        """Where the run's outcome is told."""
        return self._settlements[run.sync]
