"""The door to this package: from an artifact's specification to its tree in the store."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self, TypeVar
from weakref import WeakValueDictionary

import msgspec

from agent.artifact.azure import Azure
from agent.artifact.blob import BlobWork
from agent.artifact.checksum import find
from agent.artifact.delivery import Delivery, Flight, streamed
from agent.artifact.file import FileSource
from agent.artifact.gcs import Gcs
from agent.artifact.git import GitSource, Packer
from agent.artifact.http import HttpSource
from agent.artifact.http_access import HttpAccess
from agent.artifact.http_client import same_origin
from agent.artifact.inspection import Findings
from agent.artifact.limits import DEFAULTS, Limits
from agent.artifact.mending import looked, mend
from agent.artifact.objects import ObjectSource
from agent.artifact.oci.image import Images
from agent.artifact.oci.registry import Registry
from agent.artifact.partial import Open
from agent.artifact.pipeline import Meter, Progress, carry, check_space, telling
from agent.artifact.release import release_id
from agent.artifact.s3 import S3, S3Access
from agent.artifact.sftp import SftpSource
from agent.artifact.source import Source, shown, split
from agent.artifact.store import AGAIN, Store
from agent.artifact.trust.rules import Rules
from agent.artifact.trust.signatures import Signatures
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.errors import Permanent
from agent.kit.executor import Threads
from agent.kit.machine import architecture
from agent.kit.tasks import Owned, stop
from agent.kit.threads import settled
from agent.ssh.access import SFTP, SshAccess

log = logging.getLogger(__name__)
T = TypeVar("T")
_THREADS = 4  # each call into them is bounded, so that they serve any number of deliveries
_REMEMBERED = 64  # artifacts without a checksum, most recent


class Artifacts:
    """Fetches, verifies and unpacks. An asynchronous context manager: one session, a few threads.

    Entering it sweeps the store. Leaving it cancels what is under way and leaves nothing of it.

    Args:
        store: where releases are.
        file_roots: directories that file:// artifacts may come from; none by default.
        limits: bounds of what is fetched and unpacked.
        http: how http(s) servers are reached.
        registry_auth: file with credentials for OCI registries, see `oci.credentials`; read on each use.
        insecure_registries: HOST[:PORT] of those that are spoken to in plain http.
        s3: how S3 is reached.
        gcs: file with credentials for Google Cloud Storage, see `gcs`.
        azure: file with a connection string of Azure, see `azure`.
        sftp: how SFTP servers are reached.
        git: what gets at repositories; without it there is no git+https:// and the like.
        rules: whose signatures are required; none by default.
    """

    def __init__(
        self,
        store: Store,
        *,
        file_roots: Sequence[Path] = (),
        limits: Limits = DEFAULTS,
        http: HttpAccess | None = None,
        registry_auth: Path | None = None,
        insecure_registries: Sequence[str] = (),
        s3: S3Access | None = None,
        gcs: Path | None = None,
        azure: Path | None = None,
        sftp: SshAccess | None = None,
        git: Packer | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.store = store
        self._limits = limits
        self._executor = Threads(_THREADS, thread_name_prefix="artifact")
        self._http = HttpSource(limits, http)
        files = FileSource(file_roots, self._executor)
        self._blobs = FileSource([store.blob("")], self._executor)
        registry = Registry(self._http.client, limits, registry_auth, insecure_registries)
        self._images = Images(registry, store, limits, self._executor, ("linux", architecture()))
        clouds = (S3(s3 or S3Access()), Gcs(gcs), Azure(azure))
        objects = (ObjectSource(cloud, limits, self._http.client.trust) for cloud in clouds)
        hosts = SftpSource(sftp or SshAccess(words=SFTP), limits)
        sources: tuple[Source, ...] = (self._http, files, hosts, *objects)
        if git is not None:
            sources = (*sources, GitSource(git, self._executor))
        self._sources = {scheme: source for source in sources for scheme in source.schemes}
        self._flights: dict[object, Flight] = {}
        self.signatures = Signatures(rules or Rules(), store, registry, self._opener, limits)
        self._ensuring: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._learned: dict[str, tuple[str, str]] = {}  # URL: (validator, sha256)
        self._tasks = Owned("artifacts")
        self.unswept: OSError | None = None  # why what an earlier life left in the store is still there

    async def __aenter__(self) -> Self:
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self.store.sweep)
        except OSError as error:
            self.unswept = error
        self._tasks.start(self.store.empty_trash(), name="empty-trash")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.aclose()
        for source in dict.fromkeys(self._sources.values()):
            await source.aclose()
        self._executor.shutdown()

    async def pin(self, spec: ArtifactSpec) -> ArtifactSpec:
        """The same artifact with its digest known: what makes a release's identity.

        A digest that is given stands. A checksum file is fetched and looked into. With neither, the
        artifact itself is fetched, to learn its sha256; its bytes are kept, so that `deliver` does not fetch
        them again, and its validator is remembered, so that asking once more costs one small request as
        long as the server says that nothing changed.

        Raises what a Delivery raises, and Permanent (ChecksumMissing, ChecksumAmbiguous).
        """
        if self.signatures.sought(spec) is not None:
            await asyncio.to_thread(self.signatures.met, spec)  # reads keys, which `ready` finds read
        checksum = spec.checksum
        if checksum.hex:
            return spec
        if checksum.url:
            digest = await self._look_up(checksum, spec)
            return _pinned(spec, checksum.algorithm, digest)
        if split(spec.url).scheme in self._images.schemes:
            return _pinned(spec, "sha256", await self._images.pin(spec.url))
        return _pinned(spec, "sha256", await self._learn(spec.url))

    def deliver(
        self, spec: ArtifactSpec, app: str, progress: Progress | None = None, *, share: bool = False
    ) -> Delivery:
        """A delivery of the pinned `spec`, begun when it is entered.

        A release that is in the store is not fetched; one that is on its way is not fetched twice.

        Args:
            spec: a specification from `pin`; ValueError when its digest is not known.
            app: name of the app, for an artifact that is one plain file.
            progress: called on the loop with bytes so far and bytes in all (0: not known), at most
                twenty times a second, and at the end.
            share: nobody but root will be able to write to the release: see `agent.artifact.sharing`.
        """
        share = share and os.geteuid() == 0
        return self._delivery(spec, app, release_id(spec, app, share=share), share, progress)

    async def ensure(
        self, release: str, spec: ArtifactSpec, app: str, *, share: bool, thorough: bool = False
    ) -> Findings:
        """See to it that a release is what was unpacked: what was changed on this host is fetched again.

        Only the files that were changed are replaced, each by one rename: a program that runs in the release
        goes on. Returns what was found before that; nothing when the release was looked at seconds ago.

        Raises what a Delivery raises, and OSError.
        """
        if not thorough and self.store.just_seen(release):
            return Findings()
        async with self._ensuring.setdefault(release, asyncio.Lock()):
            found = await self.look(release, thorough=thorough)
            if found.known and not found.whole:
                await self._mend(release, spec, app, share and os.geteuid() == 0, found)
        self.store.saw(release)
        return found

    async def look(self, release: str, *, thorough: bool) -> Findings:
        """Whether a release is what was unpacked. Raises OSError."""
        stop = Event()
        work = self._run(looked, self.store, release, thorough, stop)
        return await settled(work, on_cancel=stop.set)

    async def _mend(self, release: str, spec: ArtifactSpec, app: str, share: bool, found: Findings) -> None:
        log.warning("%d files of release %s were changed on this host", len(found.changed), release)
        try:
            async with self._delivery(spec, app, release + AGAIN, share, None) as delivery:
                fresh = await delivery.published()
                await settled(self._run(mend, self.store, release, fresh, found))
        finally:
            await settled(self._run(self.store.discard_again, release))

    def _run(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *arguments))

    def _delivery(
        self, spec: ArtifactSpec, app: str, release: str, share: bool, progress: Progress | None
    ) -> Delivery:
        digest = f"{spec.checksum.algorithm}:{spec.checksum.hex.lower()}"
        board = partial(self._board, spec, app, release, share)
        ready = partial(self.ready, spec, release)
        return Delivery(release, digest, self.store, board, self._leave, progress, ready)

    def ready(self, spec: ArtifactSpec, release: str) -> bool:
        """Whether the release is here, and whoever must have signed has. Blocks for some small files."""
        return self.store.has(release) and self.signatures.met(spec)

    async def reach(self, spec: ArtifactSpec) -> int | None:
        """Open an artifact and close it again: its size in bytes, None when nobody tells.

        Raises what opening raises. Mirrors are not asked.
        """
        if split(spec.url).scheme in self._images.schemes:
            await self._images.pin(spec.url)
            return None
        async with self._opener(spec, spec.url)(None) as body:
            return body.size if body is not None else None

    async def prewarm(self, url: str) -> None:
        """Open a connection to where `url` is, so that a delivery soon after finds one. Never fails."""
        scheme = split(url).scheme
        if scheme in self._http.schemes:
            await self._http.prewarm(url)
        elif scheme in self._images.schemes:
            await self._images.prewarm(url)

    def _board(self, spec: ArtifactSpec, app: str, release: str, share: bool) -> Flight:
        key = release, self.signatures.sought(spec)
        flight = self._flights.get(key)
        if flight is not None:
            return flight
        url = spec.url
        blob = self.store.blob(spec.checksum.hex)
        if split(url).scheme in self._images.schemes:
            bring = self._images.bring(spec, app, share=share)
        else:
            places = [(shown(place), self._opener(spec, place)) for place in (url, *spec.mirrors)]
            if blob.exists():
                places.insert(
                    0, (shown(url), lambda have: self._blobs.open(blob.absolute().as_uri(), have=have))
                )
            bring = streamed(places, spec, app, self._executor, share=share)
        flight = self._flights[key] = Flight(release, self.store, self._limits, shown(url), key)

        async def signed(flight: Flight) -> Path:
            flight.case = await self.signatures.ask(spec)
            return await bring(flight)

        flight.task = self._tasks.start(flight.run(signed), name=release)
        flight.task.add_done_callback(lambda _: self._forget(flight))
        return flight

    def _forget(self, flight: Flight) -> None:
        """Let no one join it any more."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    async def _leave(self, flight: Flight) -> None:
        """Nobody waits for it."""
        self._forget(flight)
        if flight.task is not None:
            await stop(flight.task)

    def _opener(self, spec: ArtifactSpec, url: str) -> Open:
        """How `url`, which is the artifact's, a mirror's or its checksum's, is opened. Raises Permanent."""
        source = self._source(url)
        if source is self._http and spec.headers and same_origin(url, spec.url):
            return lambda have: self._http.open_with(spec.headers, url, have=have)
        return lambda have: source.open(url, have=have)

    def _source(self, url: str) -> Source:
        scheme = split(url).scheme
        source = self._sources.get(scheme)
        if source is None:
            known = ", ".join(f"{name}://" for name in self._sources)
            raise Permanent(
                "SchemeUnsupported", f"{scheme}:// is not yet supported, only {known}", where=shown(url)
            )
        return source

    async def _look_up(self, checksum: Checksum, spec: ArtifactSpec) -> str:
        where = shown(checksum.url)
        with telling(self.store.root, where, self._limits.total):
            async with (
                asyncio.timeout(self._limits.total),
                self._opener(spec, checksum.url)(None) as body,
            ):
                assert body is not None
                meter = Meter(body.size, self._limits.checksum_file, where)
                pieces = []
                while piece := await body.read():
                    meter.add(len(piece))
                    pieces.append(piece)
                meter.end()
        return find(b"".join(pieces), checksum.algorithm, spec.url, where)

    async def _learn(self, url: str) -> str:
        where = shown(url)
        validator, digest = self._learned.pop(url, ("", ""))
        with telling(self.store.root, where, self._limits.total):
            async with (
                asyncio.timeout(self._limits.total),
                self._source(url).open(url, unless=validator) as body,
            ):
                if body is not None:
                    check_space(self.store.root, body.size, where)
                    meter = Meter(body.size, self._limits.body, where)
                    validator = body.validator
                    digest = await carry(body, meter, BlobWork(self.store), self._executor)
        if validator:
            self._learned[url] = validator, digest
            while len(self._learned) > _REMEMBERED:
                del self._learned[next(iter(self._learned))]
        return digest


def _pinned(spec: ArtifactSpec, algorithm: str, digest: str) -> ArtifactSpec:
    return msgspec.structs.replace(spec, checksum=Checksum(algorithm=algorithm, hex=digest))
