"""oci://: an image, or another artifact of an OCI registry, as a vehicle of files.

An image's layers are fetched several at a time, each into the store, and merged into the release; a layer
that is there is not asked for again. A manifest whose layers have titles (as ORAS makes them) is a list of
files: a single one is taken like a download of that name, several are put where their titles say.

The digest decides what is taken. A tag beside it is for people: that it names something else by now is
told as a warning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

import msgspec

from agent.artifact.archive.refusal import Refused
from agent.artifact.delivery import Bring, Flight, brought
from agent.artifact.inventory import Scribe, beside
from agent.artifact.limits import Limits
from agent.artifact.oci import manifest
from agent.artifact.oci.layer import Budget, LayerWork, name_of, whole_layers
from agent.artifact.oci.manifest import Layer
from agent.artifact.oci.merge import merge
from agent.artifact.oci.problems import broken
from agent.artifact.oci.registry import Registry, shown
from agent.artifact.partial import Partial, fetch
from agent.artifact.pipeline import Meter, Progress, Stopped, Work, carry, check_space, telling
from agent.artifact.release import packing
from agent.artifact.source import Body
from agent.artifact.store import Store
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.errors import Failure, Permanent
from agent.domain.oci_reference import SCHEME, Reference, parse
from agent.kit.files import remove_tree
from agent.kit.threads import settled

_PARALLEL = 3  # layers at a time: what docker does, and leaves a thread to others
_INDEXES = 3  # an index may name an index, but not for ever


class Images:
    """Brings what oci:// names into the store. One object for the agent's life.

    Args:
        platform: (os, architecture) to choose from an index.
    """

    schemes: tuple[str, ...] = (SCHEME,)

    def __init__(
        self, registry: Registry, store: Store, limits: Limits, executor: Executor, platform: tuple[str, str]
    ) -> None:
        self._registry = registry
        self._store = store
        self._limits = limits
        self._executor = executor
        self._platform = platform
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def pin(self, url: str) -> str:
        """The sha256 (hex) of the manifest that `url` names now. Raises Failure."""
        reference = _parsed(url)
        wanted = f"sha256:{reference.hex}" if reference.hex else reference.tag
        where = shown(reference, wanted)
        if not wanted:
            raise Permanent("UrlInvalid", "neither a tag nor a digest", where=where)
        with telling(self._store.root, where, self._limits.total):
            async with asyncio.timeout(self._limits.total):
                digest = await self._registry.digest(reference, wanted)
        if not digest:
            raise Permanent(
                "ArtifactNotFound", "the registry has nothing of that name", where=where, remedy="push it"
            )
        return digest.removeprefix("sha256:")

    async def prewarm(self, url: str) -> None:
        """Open a connection to the registry. Never fails."""
        try:
            await self._registry.prewarm(parse(url))
        except ValueError:
            return  # the delivery will tell

    def bring(self, spec: ArtifactSpec, app: str, *, share: bool = False) -> Bring:
        """How the artifact of `app` gets into the store; `spec` has its digest.

        With `share` the release's files are the layers', see `agent.artifact.sharing`.
        """

        async def bring(flight: Flight) -> Path:
            reference = _parsed(spec.url)
            digest = f"sha256:{spec.checksum.hex}"
            layers: list[Layer]
            layers, _ = await _together(
                [
                    self._layers(reference, digest, flight.where),
                    self._watch_tag(flight, reference, digest),
                ]
            )
            if len(layers) == 1 and layers[0].title:
                return await self._one_file(flight, reference, layers[0], spec, app, digest)
            return await self._tree(flight, reference, layers, spec.strip, digest, share=share)

        return bring

    async def _watch_tag(self, flight: Flight, reference: Reference, digest: str) -> None:
        """Tell when the tag names something else by now; whatever hinders that is no matter."""
        if not reference.tag:
            return
        try:
            async with asyncio.timeout(self._limits.connect):
                now = await self._registry.digest(reference, reference.tag)
        except (Failure, TimeoutError):
            return
        if now and now != digest:
            flight.warning = (
                f"{shown(reference, reference.tag)} names {now} now; {digest} is wanted, and used"
            )

    async def _layers(self, reference: Reference, digest: str, where: str) -> list[Layer]:
        """What the manifest of this digest lists, for this platform. Raises Failure."""
        try:
            data = await self._registry.manifest(reference, digest)
        except Permanent as failure:
            if failure.reason == "ArtifactNotFound" and reference.tag:
                await self._explain(reference, digest)
            raise
        for _ in range(_INDEXES):
            entries, layers = manifest.read(data, where, self._limits)
            if entries is None:
                return layers
            chosen = manifest.choose(entries, *self._platform, where)
            data = await self._registry.manifest(reference, chosen.digest)
        raise broken(f"more than {_INDEXES} indexes in one another", where)

    async def _explain(self, reference: Reference, digest: str) -> None:
        now = await self._registry.digest(reference, reference.tag)
        if now and now != digest:
            raise Permanent(
                "TagMoved",
                f"the tag names {now} now, and {digest} is not there any more",
                where=shown(reference, reference.tag),
                remedy="name the new digest, or push what had the old one",
            )

    async def _one_file(
        self, flight: Flight, reference: Reference, layer: Layer, spec: ArtifactSpec, app: str, digest: str
    ) -> Path:
        algorithm, _, expected = layer.digest.partition(":")
        named = msgspec.structs.replace(spec, url=f"{SCHEME}:///{quote(layer.title)}")
        return await brought(
            flight,
            lambda have: self._registry.blob(reference, layer.digest, have),
            packing(named, app),
            Checksum(algorithm=algorithm, hex=expected),
            lambda _: flight.is_verified(digest),
            self._executor,
        )

    async def _tree(
        self,
        flight: Flight,
        reference: Reference,
        layers: list[Layer],
        strip: int,
        digest: str,
        *,
        share: bool,
    ) -> Path:
        wanted = {name_of(layer): layer for layer in layers}
        with self._store.using(*wanted):
            loop = asyncio.get_running_loop()
            there = await settled(loop.run_in_executor(self._executor, whole_layers, self._store, wanted))
            missing = {name: one for name, one in wanted.items() if name not in there}
            total = sum(one.size for one in missing.values())
            check_space(self._store.root, total, flight.where)
            progress = dict.fromkeys(missing, 0)
            budget = Budget(self._limits)

            def tell(name: str, done: int, _: int) -> None:
                progress[name] = done
                flight.tell(sum(progress.values()), total)

            async def fetch_one(name: str, layer: Layer) -> None:
                async with self._fetching.setdefault(name, asyncio.Lock()), self._slots:
                    if not self._store.layer(name).is_dir():  # else another delivery was faster
                        await self._fetch(flight, reference, layer, budget, partial(tell, name))

            await _together([fetch_one(name, layer) for name, layer in missing.items()])
            flight.all_fetched(sum(progress.values()))
            flight.is_verified(digest)
            return await self._merge(flight, [name_of(layer) for layer in layers], strip, share=share)

    async def _fetch(
        self, flight: Flight, reference: Reference, layer: Layer, budget: Budget, tell: Progress
    ) -> None:
        """One layer, into the store."""
        where = shown(reference, layer.digest)
        key = layer.digest.partition(":")[2]
        kept = Partial(self._store.partial(key))

        async def carrying(body: Body, work: Work[None]) -> None:
            meter = Meter(layer.size, layer.size, where, tell)
            await carry(body, meter, work, self._executor, beside=_PARALLEL)

        with self._store.using(key):
            await fetch(
                kept,
                lambda have: self._registry.blob(reference, layer.digest, have),
                lambda: LayerWork(self._store, layer, self._limits, budget, where, kept.remove),
                carrying,
                flight.again,
            )

    async def _merge(self, flight: Flight, names: Sequence[str], strip: int, *, share: bool) -> Path:
        stop, temp = Event(), self._store.new_temp()
        scribe = Scribe(beside(temp))

        def check() -> None:
            if stop.is_set():
                raise Stopped

        def work() -> Path:
            try:
                temp.mkdir(0o755)
                layers = [(self._store.layer(name), self._store.inventory(name)) for name in names]
                if not merge(layers, temp, strip, self._limits, check, scribe, share=share):
                    raise Refused("ArchiveEmpty", "nothing is left of the layers", remedy="look at `strip`")
                check()
                self._store.note_layers(flight.release, dict.fromkeys(names))
                scribe.end()
                return self._store.publish(temp, flight.release, scribe.path)
            except BaseException as error:
                scribe.path.unlink(missing_ok=True)
                remove_tree(temp)
                if isinstance(error, Refused):
                    raise Permanent(
                        error.reason, str(error), where=flight.where, remedy=error.remedy
                    ) from None
                raise
            finally:
                scribe.close()

        loop = asyncio.get_running_loop()
        return await settled(loop.run_in_executor(self._executor, work), on_cancel=stop.set)


async def _together(jobs: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run all at once; the first failure ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from None
    return [task.result() for task in tasks]


def _parsed(url: str) -> Reference:
    try:
        return parse(url)
    except ValueError as error:
        raise Permanent("UrlInvalid", str(error), where=url[:200]) from None
