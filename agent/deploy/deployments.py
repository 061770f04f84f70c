"""Deployments on disk: a pair of release and config generation with the spec that asked for it.

`current` and `good` are relative links, made beside and renamed over; they are the truth about what
serves. A deployment holds everything needed to start it again without network. Blocking; small files.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.deploy.layout import AppDirectory
from agent.domain.model import Pair
from agent.domain.spec import AppSpec, decode, encode
from agent.kit.files import link_atomically, remove_tree, sync_directory, write_atomically
from agent.kit.mask import secrets as masker


def pair_of(spec: AppSpec, release: str, commit: str, signer: str = "", artifact_signer: str = "") -> Pair:
    """The pair that a pinned specification is about; `release` is "" without an artifact."""
    checksum = spec.artifact.checksum if spec.artifact else None
    return Pair(
        spec=spec.digest,
        release=release,
        generation=spec.files_digest if spec.files else "",
        version=spec.version,
        commit=commit,
        digest=f"{checksum.algorithm}:{checksum.hex}" if checksum else "",
        since=time.time(),
        signer=signer,
        artifact_signer=artifact_signer,
    )


KNOWN_MAX = 8  # decoded deployments remembered an app: `current` and `good` are asked for all the time


@dataclass(frozen=True, slots=True)
class Deployment:
    """A pair, its spec, and where it lies, or will once it is written.

    `release` is the release's tree (None for an app without an artifact), `generation` the config
    generation's directory (None when the app has no files).
    """

    pair: Pair
    spec: AppSpec
    path: Path
    release: Path | None
    generation: Path | None

    def whole(self) -> bool:
        """Whether release and generation are there."""
        return all(path is None or path.is_dir() for path in (self.release, self.generation))


class Deployments:
    """All deployments of one app, and the two links."""

    def __init__(self, directory: AppDirectory) -> None:
        self._directory = directory
        self._known: dict[
            tuple[str, int, int], Deployment
        ] = {}  # by name, and when its two files were written

    def describe(self, spec: AppSpec, pair: Pair) -> Deployment:
        """A deployment as it is to be; nothing is written yet."""
        release = self._directory.store / "trees" / pair.release if pair.release else None
        generation = self._directory.generations / pair.generation if pair.generation else None
        return Deployment(pair, spec, self._directory.deployments / pair.spec, release, generation)

    def write(self, deployment: Deployment) -> None:
        """Write a deployment whole; one that is there only learns what brought it back. Raises OSError."""
        path, pair, spec = deployment.path, deployment.pair, deployment.spec
        if (found := self._read(path)) is not None and found.whole():
            write_atomically(path / "pair", msgspec.json.encode(pair))
            return
        beside = path.with_name(f".{pair.spec}.tmp")
        remove_tree(beside)
        beside.mkdir()
        for name, data in (("spec", encode(spec)), ("pair", msgspec.json.encode(pair))):
            with open(os.open(beside / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if pair.release:
            trees = os.path.relpath(self._directory.store / "trees" / pair.release, path)
            os.symlink(trees, beside / "release")
        if pair.generation:
            os.symlink(f"../../generations/{pair.generation}", beside / "config")
        sync_directory(beside)
        remove_tree(path)
        os.rename(beside, path)
        sync_directory(path.parent)

    def _read(self, path: Path) -> Deployment | None:
        try:
            # Never written in place: what changes is another file.
            key = path.name, (path / "spec").stat().st_ctime_ns, (path / "pair").stat().st_ctime_ns
            if (known := self._known.get(key)) is not None:
                return known
            spec = decode((path / "spec").read_bytes())
            masker.add(*spec.secrets.values())
            pair = msgspec.json.decode((path / "pair").read_bytes(), type=Pair)
            found = self.describe(spec, pair)
            while len(self._known) >= KNOWN_MAX:  # asked by several threads
                self._known.pop(next(iter(self._known)), None)
            self._known[key] = found
            return found
        except (OSError, msgspec.MsgspecError):
            return None

    def get(self, spec: str) -> Deployment | None:
        """The deployment of a spec digest, if it is whole."""
        found = self._read(self._directory.deployments / spec)
        return found if found is not None and found.whole() else None

    def linked(self, link: str) -> Deployment | None:
        """The deployment that `current` or `good` names; None when there is none or it is not whole."""
        path = self._directory.root / link
        try:
            target = os.readlink(path)
        except OSError:
            return None
        found = self._read(self._directory.root / target)
        return found if found is not None and found.whole() else None

    def link(self, link: str, deployment: Deployment | None) -> None:
        """Point `current` or `good` at a deployment by one rename; None removes the link."""
        path = self._directory.root / link
        if deployment is None:
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
        else:
            link_atomically(path, f"deployments/{deployment.pair.spec}")

    def all(self) -> list[Deployment]:
        """Every whole deployment, newest first."""
        if not self._directory.deployments.is_dir():  # an app that was never begun
            return []
        found = (self._read(p) for p in self._directory.deployments.iterdir() if p.name[0] != ".")
        whole = [d for d in found if d is not None and d.whole()]
        return sorted(whole, key=lambda d: d.path.stat().st_mtime, reverse=True)

    def prove(self, deployment: Deployment) -> None:
        """Remember that a deployment proved itself, and point `good` at it."""
        write_atomically(deployment.path / "proven", b"")
        self.link("good", deployment)

    def proven(self) -> list[Deployment]:
        """Deployments that once proved themselves, the one that did last first."""
        found = [d for d in self.all() if (d.path / "proven").exists()]
        return sorted(found, key=lambda d: (d.path / "proven").stat().st_mtime, reverse=True)

    def retain(self, keep: int, always: Iterable[str]) -> None:
        """Remove deployments beyond the newest `keep`, and generations none of the rest names.

        `always` are spec digests that stay whatever their age: current, good, in use.
        """
        kept = set(always)
        deployments = self.all()
        for deployment in deployments:
            if deployment.pair.spec in kept:
                continue
            if len(kept) < max(keep, 1) + 1:
                kept.add(deployment.pair.spec)
        self._remove([path for path in self._directory.deployments.iterdir() if path.name not in kept])
        named = {d.pair.generation for d in deployments if d.pair.spec in kept}
        for path in self._directory.generations.iterdir():
            if path.name not in named and not path.name.startswith("."):
                remove_tree(path)

    def drop(self, spec: str) -> None:
        """Remove one deployment, by one rename. Raises OSError."""
        self._remove([self._directory.deployments / spec])

    def _remove(self, paths: Iterable[Path]) -> None:
        """Remove each by one rename: none that has its name ever lacks a part, even after a power cut."""
        halves = []
        for path in paths:
            half = path if path.name.startswith(".") else path.with_name(f".{path.name}.gone.tmp")
            if half != path:
                remove_tree(half)
                os.rename(path, half)
            halves.append(half)
        if halves:
            sync_directory(self._directory.deployments)
        for half in halves:
            remove_tree(half)

    def forget(self) -> None:
        """Take away what only a running app needs: links and instances; never `dirs`."""
        for link in ("good", "current"):  # a good pair without a current one would be taken for the app
            self.link(link, None)
        shutil.rmtree(self._directory.instances, ignore_errors=True)
        self._directory.instances.mkdir(exist_ok=True)
