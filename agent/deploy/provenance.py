"""Whether a commit may be deployed at all: who said so, and whether it follows the last deployed one.

| the new commit | verdict |
|---|---|
| is, or has behind it, the last deployed commit | goes on |
| does not have it behind it | HistoryRewritten: `emptybox sync --accept-history` |
| is followed by its full id | goes on: the agent's settings chose it |
| lacks a signature that the settings ask for | SignatureMissing, SignatureRefused |

"Deployed" means that a sync of it ended well, or that an operator accepted it. The mark is kept in the
journal; without it (a lost journal) the commit of the newest pair that serves stands in.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from agent.deploy.journal import Journal
from agent.domain.errors import OperatorNeeded
from agent.domain.events import SyncFinished
from agent.domain.model import SyncResult
from agent.source.git.protocol import is_object_id
from agent.source.git.remote import GitRemote, Snapshot
from agent.source.trust.policy import Mode, Trust

FACT = "deployed"  # key of the journal's fact: what is followed, the commit, the sync that ended well
_WELL = (SyncResult.SUCCEEDED, SyncResult.UNCHANGED)


class Provenance:
    """Judges commits.

    Args:
        remote: where history comes from.
        ref: what is followed.
        trust: whose signatures are required; None requires none.
        journal: keeps the last deployed commit.
        serving: the commit of the newest pair that serves, "" when nothing does.
    """

    def __init__(
        self, remote: GitRemote, ref: str, trust: Trust | None, journal: Journal, serving: Callable[[], str]
    ) -> None:
        self._remote = remote
        self._ref = ref
        self._trust = trust
        self._journal = journal
        self._serving = serving
        self._followed = f"{remote.where} {ref}"
        self._verified: dict[str, object] = {}  # commit: the version of the keys it was accepted with

    @property
    def by_tag(self) -> bool:
        """Whether it is the followed tag whose signature counts."""
        return self._trust is not None and self._trust.mode is Mode.TAG

    def keys_version(self) -> object:
        """Changes when the trusted keys do."""
        return self._trust.version() if self._trust is not None else None

    def accepted(self, commit: str) -> bool:
        """Whether a commit was judged well with the keys as they are now."""
        return self._trust is None or self._verified.get(commit, ()) == self.keys_version()

    async def newest(self, snapshot: Snapshot, *, accept_history: bool) -> str:
        """Judge the commit that is followed; returns its signer, "" if none is required. Raises Failure."""
        old = "" if accept_history or is_object_id(self._ref.lower()) else self._deployed()
        every = self._trust is not None and self._trust.mode is Mode.EVERY
        since: tuple[tuple[str, bytes], ...] = ((snapshot.commit, snapshot.raw(snapshot.commit)),)
        if old and old != snapshot.commit and snapshot.parents != (old,):
            passage = await self._remote.since(snapshot.commit, old, all_commits=every)
            if not passage.contained:
                raise _rewritten(snapshot, old)
            since = passage.since if every else since
        signer = await self._signer(snapshot, since)
        if accept_history:
            self._remember(snapshot.commit, "")
        return signer

    async def earlier(self, snapshot: Snapshot) -> str:
        """Judge an earlier commit by itself. Raises Failure."""
        return await self._signer(snapshot, ((snapshot.commit, snapshot.raw(snapshot.commit)),))

    async def _signer(self, snapshot: Snapshot, since: tuple[tuple[str, bytes], ...]) -> str:
        if self._trust is None:
            return ""
        trust, version = self._trust, self._trust.version()
        if trust.mode is Mode.TAG:
            content = snapshot.raw(snapshot.tag) if snapshot.tag else None
            name = self._ref.removeprefix("refs/tags/")
            signer = await asyncio.to_thread(trust.tag, content, name, snapshot.commit)
        else:
            signer = await asyncio.to_thread(trust.commits, since, snapshot.object_format)
        self._verified[snapshot.commit] = version
        return signer

    def ended(self, event: SyncFinished) -> None:
        """A sync ended: when it ended well, its commit is the one that must stay behind all others."""
        if event.result not in _WELL or not event.commit:
            return
        known = self._fact()
        if event.sync >= known.get("sync", ""):  # ids sort by time; an older sync may end later
            self._remember(event.commit, event.sync)

    def _remember(self, commit: str, sync: str) -> None:
        fact = {"followed": self._followed, "commit": commit, "sync": sync}
        self._journal.put_fact(FACT, json.dumps(fact))

    def _deployed(self) -> str:
        known = self._fact()
        return known["commit"] if known else self._serving()

    def _fact(self) -> dict[str, str]:
        """The mark, unless it is of another repository or ref: then the settings were changed."""
        text = self._journal.fact(FACT)
        fact: dict[str, str] = json.loads(text) if text else {}
        if fact and fact["followed"] != self._followed:
            return {"commit": "", "sync": ""}
        return fact


def _rewritten(snapshot: Snapshot, old: str) -> OperatorNeeded:
    return OperatorNeeded(
        "HistoryRewritten",
        f"the commit {snapshot.commit[:12]} does not have the last deployed one, {old[:12]}, behind it",
        remedy="somebody pushed by force; if that is meant: emptybox sync --accept-history",
    )
