"""One look at the truth: resolve the commit once, read it, merge it for this host."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent.config import Settings
from agent.deploy.provenance import Provenance
from agent.deploy.sockets import for_this_host
from agent.domain.errors import OperatorNeeded, Permanent
from agent.domain.events import SyncFinished
from agent.domain.model import DesiredState
from agent.domain.spec import AppSpec
from agent.kit.files import remove_tree
from agent.kit.memory import give_back
from agent.process.adoption import Adoption
from agent.source.desired import HostView, load
from agent.source.git.remote import GitRemote, Snapshot
from agent.source.secrets import SecretReader
from agent.source.trust.policy import REASONS

log = logging.getLogger(__name__)

EARLIER = 30  # commits looked through for an earlier specification
REST = 5.0  # seconds after the end of a sync
KEPT = 3  # exported commits kept on disk


class Look:
    """Reads desired states from the state repository. Exported trees lie in `directory`, a cache only."""

    def __init__(
        self,
        remote: GitRemote,
        directory: Path,
        settings: Settings,
        adoption: Adoption,
        provenance: Provenance,
        secrets: SecretReader,
    ) -> None:
        self._remote = remote
        self._provenance = provenance
        self._secrets = secrets  # as the newest look at the followed ref read them
        self._asked = time.monotonic()  # when programs were last asked for secrets
        self._adoption = adoption
        self._directory = directory
        self._settings = settings
        own = [(at.host, at.port) for at in (settings.admin, settings.webhook) if at is not None and at.port]
        self._view = HostView(
            name=settings.name, labels=settings.labels, ports=settings.ports, own=tuple(own)
        )
        self.reached = False  # the newest look got an answer from the repository
        self.seen: str | None = None  # the newest commit resolved, readable or not: what a poll compares with
        self._keys: object = None  # the version of the trusted keys that it was judged with
        self._resting: asyncio.TimerHandle | None = None
        self._tidying: asyncio.Future[None] | None = None
        self._reading = asyncio.Lock()  # of the exported trees: none is tidied away under a reader
        self._clean = False

    async def begin(self) -> None:
        """Remove what earlier agents left; if that cannot be, the first look tries again."""
        try:
            await asyncio.to_thread(self._empty)
        except OSError as error:
            log.warning("what earlier looks left cannot be removed: %s", error)

    def _empty(self) -> None:
        """A cache: what a power cut left half-written must not be taken for a commit. Raises OSError."""
        remove_tree(self._directory)
        self._directory.mkdir()
        self._clean = True

    async def head(self) -> str:
        """The commit that the followed ref names now: one request. Raises Failure."""
        return await self._remote.ls_ref(self._settings.ref)

    def known(self) -> str | None:
        """The newest commit resolved; None when trusted keys were replaced since: it is judged again."""
        return None if self._keys != self._provenance.keys_version() else self.seen

    async def replaced(self) -> str:
        """What was replaced since, so that the newest commit is to be read again; "" when nothing."""
        if self.seen is None:
            return ""
        if self._keys != self._provenance.keys_version():
            return "a trusted key was replaced"
        if not self._secrets.watched:
            return ""
        programs = time.monotonic() - self._asked >= self._settings.poll
        if programs:
            self._asked = time.monotonic()
        changed = await asyncio.to_thread(self._secrets.changed, programs=programs)
        return f"a secret changed: {', '.join(changed[:5])}" if changed else ""

    async def resolve(self, announced: str | None, *, accept_history: bool = False) -> DesiredState:
        """The desired state at the followed ref, read and merged for this host. Raises Failure.

        `accept_history`: the last deployed commit need not be behind it.
        """
        self.reached = False
        by_tag = self._provenance.by_tag
        snapshot = await self._remote.resolve(self._settings.ref, announced, tag=by_tag)
        self.reached = True
        self.seen, self._keys = snapshot.commit, self._provenance.keys_version()
        try:
            signer = await self._provenance.newest(snapshot, accept_history=accept_history)
        except BaseException:
            snapshot.close()
            raise
        return await self._read(snapshot, signer, follow=True)

    def ended(self, event: SyncFinished) -> None:
        """A sync of a commit ended, and with it the haste: what its look left to do is done now."""
        self._provenance.ended(event)
        if self._tidying is None and not self._reading.locked():
            self._begin_tidying(event.commit)
        if self._resting is not None:
            self._resting.cancel()
        self._resting = asyncio.get_running_loop().call_later(REST, self._rest)

    def _rest(self) -> None:
        """What reading took is given back: a state may be large, and each thread keeps what it needed."""
        with suppress(RuntimeError):  # the agent ends
            asyncio.get_running_loop().run_in_executor(None, give_back)

    async def peek(self, ref: str = "") -> DesiredState:
        """The same for any ref ("" = the followed one), leaving no trace for polls. Raises Failure."""
        return await self._read(await self._remote.resolve(ref or self._settings.ref, None))

    async def at(self, commit: str) -> DesiredState:
        """The desired state of one commit. Raises Failure."""
        tree = self._directory / commit
        async with self._reading:
            await self._tidied()
            if self._clean and tree.is_dir() and self._provenance.accepted(commit):
                return await self._load(commit, tree, "")
        snapshot = await self._remote.fetch(commit)
        try:
            signer = await self._provenance.earlier(snapshot)
        except BaseException:
            snapshot.close()
            raise
        return await self._read(snapshot, signer)

    async def earlier(self, commit: str, app: str, count: int) -> list[tuple[str, AppSpec]]:
        """Up to `count` distinct earlier specifications of an app, newest first.

        Broken ones are left out, and those that are not signed as they must be.

        Raises Failure when the history cannot be fetched.
        """
        found: list[tuple[str, AppSpec]] = []
        seen: set[str] = set()
        for previous in await self._remote.earlier(commit, EARLIER):
            try:
                spec = (await self.at(previous)).apps.get(app)
            except Permanent:
                continue
            except OperatorNeeded as failure:
                if failure.reason not in REASONS:
                    raise
                continue
            if spec is not None and spec.digest not in seen:
                seen.add(spec.digest)
                found.append((previous, spec))
            if len(found) >= count:
                break
        return found

    async def _read(self, snapshot: Snapshot, signer: str = "", *, follow: bool = False) -> DesiredState:
        async with self._reading:
            await self._tidied()
            return await self._export_and_load(snapshot, signer, follow)

    async def _export_and_load(self, snapshot: Snapshot, signer: str, follow: bool) -> DesiredState:
        tree = self._directory / snapshot.commit
        try:
            if not self._clean:
                await asyncio.to_thread(self._empty)
            if not tree.is_dir():
                beside = self._directory / f".{snapshot.commit}.tmp"
                if beside.exists():
                    await asyncio.to_thread(remove_tree, beside)
                await snapshot.export(beside)
                await asyncio.to_thread(os.rename, beside, tree)
        except OSError as error:
            raise OperatorNeeded(
                "DataNotUsable",
                f"the state repository's files cannot be written: {error.strerror}",
                where=str(tree),
                remedy="free space or permissions in the data directory",
            ) from error
        finally:
            snapshot.close()
        return await self._load(snapshot.commit, tree, signer, follow)

    async def _load(self, commit: str, tree: Path, signer: str, follow: bool = False) -> DesiredState:
        view = replace(self._view, secrets=self._secrets.anew())
        try:
            image = self._settings.templates
            loaded = await asyncio.to_thread(load, tree, self._settings.path, view, image=image)
        finally:
            if follow and view.secrets is not None:
                self._secrets, self._asked = view.secrets, time.monotonic()
            if not follow:
                self._begin_tidying(commit)
        apps, alone = await for_this_host(loaded.apps, self._adoption)
        refused = {**loaded.refused, **alone}
        return DesiredState(commit, str(tree), apps, loaded.warnings, signer, loaded.freezes, refused)

    def _begin_tidying(self, commit: str) -> None:
        self._tidying = asyncio.get_running_loop().run_in_executor(None, self._tidy, commit)

    async def _tidied(self) -> None:
        """Old trees are removed beside what follows; the next reader waits until that is done."""
        if self._tidying is not None:
            await self._tidying
            self._tidying = None

    def _tidy(self, commit: str) -> None:
        trees = [p for p in self._directory.iterdir() if not p.name.startswith(".") and p.name != commit]
        for old in sorted(trees, key=lambda p: p.stat().st_mtime, reverse=True)[KEPT - 1 :]:
            remove_tree(old)
