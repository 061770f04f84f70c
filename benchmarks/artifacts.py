"""From the request to the published release, against the single stages done by the usual programs alone.

1 GiB in about 9,000 mixed files as tar.gz and tar.zst, and 1 GiB as one plain file, from nginx on loopback:
against the slowest of curl to /dev/null, openssl sha256, gzip -d or zstd -d to /dev/null, and tar -x of the
unpacked archive. None of these stages syncs anything to disk; a release is synced. 20,000 small files:
against GNU tar and syncfs (`sync -f`). An image of two layers, and its second release with one changed
layer, from docker-registry: against skopeo copy and umoci unpack. All take turns in one run, each into a
directory of its own. BENCH_DIR says where (by default the directory of temporary files); it takes 30 GiB.
Best is a file system on which nobody else removes files meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import corpus
from benchmarks.corpus import MIB, Packed
from benchmarks.report import Report
from tests.kit.artifact_server import ArtifactServer
from tests.kit.registry import Registry, layers_of
from tests.kit.registry import run as run_tool

ROUNDS = 3
SIZE = 1024  # MiB
SMALL_FILES = 20_000
GOALS = {"tar.gz": 0.8, "tar.zst": 1.6, "plain": 1.4, "small files": 1.0, "oci": 1.0}
MEMORY_GOAL, LAG_GOAL = 32.0, 0.05  # MiB, seconds
UNPACK = {"tar.gz": "gzip", "tar.zst": "zstd"}
Json = dict[str, Any]


@dataclass(slots=True)
class Found:
    """Of one kind of artifact: seconds of each stage alone and of ours, a number a round."""

    stages: dict[str, list[float]] = field(default_factory=dict)
    ours: list[Json] = field(default_factory=list)

    def stage(self, name: str, seconds: float) -> None:
        """One more round of a stage."""
        self.stages.setdefault(name, []).append(seconds)

    @property
    def slowest(self) -> tuple[str, float]:
        """The stage that takes longest, and its median."""
        medians = {name: statistics.median(times) for name, times in self.stages.items()}
        name = max(medians, key=medians.__getitem__)
        return name, medians[name]

    @property
    def seconds(self) -> float:
        """Our median."""
        return statistics.median(float(one["seconds"]) for one in self.ours)

    @property
    def ratio(self) -> float:
        """Ours to the slowest stage."""
        return self.seconds / self.slowest[1]


@dataclass(slots=True)
class Bench:
    """Where everything is. `carry` brings an artifact into the store."""

    base: Path
    server: ArtifactServer
    registry: Registry
    carrier: asyncio.subprocess.Process
    _number: int = 0

    def fresh(self) -> Path:
        """A new directory. Nothing is removed before the end: for a minute that makes ext4 slow to create."""
        self._number += 1
        path = self.base / "out" / str(self._number)
        path.mkdir(parents=True)
        return path

    async def carry(self, url: str, checksum: str, *, share: bool = False) -> Json:
        """Our side."""
        assert self.carrier.stdin is not None
        assert self.carrier.stdout is not None
        order = {"url": url, "checksum": checksum, "share": share}
        self.carrier.stdin.write(json.dumps(order).encode() + b"\n")
        line = await self.carrier.stdout.readline()
        if not line:
            raise RuntimeError("the carrier ended")
        answer: Json = json.loads(line)
        return answer

    async def alone(self, *command: object, to: Path | None = None) -> float:
        """Seconds that a program takes; its output goes nowhere."""
        words = [os.fspath(word) if isinstance(word, Path) else str(word) for word in command]
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL, cwd=to)
        if await process.wait() != 0:
            raise RuntimeError(f"{words[0]} ended with {process.returncode}")
        return time.perf_counter() - began

    async def settle(self, *sources: Path) -> None:
        """Nothing is left to be written by the disk, and of what was read only `sources` are in memory.

        In a virtual machine a page of memory that was never used costs many times one that was. What is let
        go here is used again, by whoever comes next; without it the first to write pays for all.
        """
        await asyncio.to_thread(_settle, sources)


def _settle(sources: Sequence[Path]) -> None:
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return  # not root's, or of a container: both sides pay
    for source in sources:
        for path in source.rglob("*") if source.is_dir() else [source]:
            if path.is_file():
                with path.open("rb") as file:
                    while file.read(MIB):
                        pass


async def run(rounds: int = ROUNDS, size: int = SIZE) -> Report:
    """Measure; `size` in MiB, for the number of small files in proportion."""
    with tempfile.TemporaryDirectory(prefix="emptybox-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        async with _bench(Path(name)) as bench:
            found = {
                **await _large(bench, rounds, size),
                "small files": await _small(bench, rounds, SMALL_FILES * size // SIZE),
            }
            oci = await _images(bench, size)
    return _report(found, oci, size)


@asynccontextmanager
async def _bench(base: Path) -> AsyncIterator[Bench]:
    async with ArtifactServer(base) as server, Registry(base) as registry:
        carrier = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.carrier", str(base / "store"), registry.host,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield Bench(base, server, registry, carrier)
        finally:
            assert carrier.stdin is not None
            carrier.stdin.close()
            await carrier.wait()


async def _large(bench: Bench, rounds: int, size: int) -> dict[str, Found]:
    """tar.gz, tar.zst and the plain file."""
    made = await asyncio.to_thread(_make_large, bench.server.root, size)
    await _warm(bench)
    found = {name: Found() for name in made if name != "tar"}
    for _ in range(rounds):
        for name, one in found.items():
            await _round(bench, one, made[name], made["tar"], UNPACK.get(name))
    return found


def _make_large(root: Path, size: int) -> dict[str, Packed]:
    files, plain = root / "files", root / "plain.bin"
    corpus.mixed(files, size * MIB, corpus.FILES * size // SIZE)
    tar = corpus.tar(files, root / "large.tar")
    with plain.open("wb") as out:
        for _ in range(size):
            out.write(os.urandom(MIB))
    gz, zst = (corpus.compressed(tar.path, program, suffix) for program, suffix in _SUFFIXES)
    return {"tar": tar, "tar.gz": gz, "tar.zst": zst, "plain": corpus.packed(plain)}


_SUFFIXES = (("gzip", ".gz"), ("zstd", ".zst"))


async def _warm(bench: Bench) -> None:
    """Everything is imported, and the connection is open."""
    for suffix in ("tar", "tar.gz", "tar.zst"):
        tree = bench.fresh()
        corpus.small(tree, 20)
        archive = corpus.tar(tree, bench.server.root / f"warm-{suffix}.tar")
        for program, ending in _SUFFIXES:
            if suffix.endswith(ending):
                archive = corpus.compressed(archive.path, program, ending)
        await bench.carry(f"{bench.server.url}/{archive.path.name}", archive.checksum)


async def _round(bench: Bench, found: Found, one: Packed, tar: Packed, unpack: str | None) -> None:
    """Each stage alone, then ours."""
    await bench.settle(one.path)
    url = f"{bench.server.url}/{one.path.name}"
    found.stage("curl", await bench.alone("curl", "-s", "-o", "/dev/null", url))
    found.stage("openssl sha256", await bench.alone("openssl", "dgst", "-sha256", one.path))
    if unpack is not None:
        found.stage(f"{unpack} -d", await bench.alone(unpack, "-dc", one.path))
        await bench.settle(tar.path)
        found.stage("tar -x", await bench.alone("tar", "-xf", tar.path, to=bench.fresh()))
    await bench.settle(one.path)
    await _ours(bench, found, url, one.checksum)


async def _ours(bench: Bench, found: Found, url: str, checksum: str) -> None:
    told = await bench.carry(url, checksum)
    found.ours.append(told)
    os.rename(told["tree"], bench.fresh() / "tree")  # so that the next round brings it again


async def _small(bench: Bench, rounds: int, count: int) -> Found:
    """Many small files, against GNU tar and a sync."""
    tree = bench.fresh()
    await asyncio.to_thread(corpus.small, tree, count)
    archive = await asyncio.to_thread(corpus.tar, tree, bench.server.root / "small.tar")
    found = Found()
    for _ in range(rounds):
        target = bench.fresh()
        await bench.settle(archive.path)
        seconds = await bench.alone("tar", "-xf", archive.path, to=target)
        found.stage("tar -x, sync -f", seconds + await bench.alone("sync", "-f", target))
        await bench.settle(archive.path)
        await _ours(bench, found, f"{bench.server.url}/{archive.path.name}", archive.checksum)
    return found


async def _images(bench: Bench, size: int) -> Json:
    """An image of a large layer and a small one, then the same with another small one."""
    image = bench.base / "image"
    large, layers = bench.fresh(), []
    await asyncio.to_thread(
        corpus.mixed, large, size * MIB * 9 // 10, corpus.FILES * size * 9 // SIZE // 10, 7
    )
    layers.append((await asyncio.to_thread(corpus.tar, large, bench.base / "layer-0.tar")).path)
    for version in (1, 2):
        tree = bench.fresh()
        await asyncio.to_thread(corpus.mixed, tree, size * MIB // 10, 100, version)
        layers.append((await asyncio.to_thread(corpus.tar, tree, bench.base / f"layer-{version}.tar")).path)
    found: Json = {}
    for version in (1, 2):
        digest, last = await _push(
            bench, image.with_name(f"image-{version}"), layers[0], layers[version], version
        )
        await bench.settle(bench.registry.data)
        theirs = await _by_tools(bench, version)
        await bench.settle(bench.registry.data)
        url = f"oci://{bench.registry.host}/bench:{version}"
        ours = await bench.carry(url, digest)
        found[f"release {version}"] = {"ours": ours, "skopeo, umoci": theirs, "last layer": last}
    return found


async def _push(bench: Bench, path: Path, base: Path, top: Path, version: int) -> tuple[str, int]:
    """Build and push; the manifest's digest, and the size of the layer on top in bytes."""
    await _tool("umoci", "init", "--layout", path)
    await _tool("umoci", "new", "--image", f"{path}:latest")
    for layer in (base, top):
        await _tool("umoci", "raw", "add-layer", "--image", f"{path}:latest", layer)
    await _tool(
        "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false",
        f"oci:{path}:latest", f"docker://{bench.registry.host}/bench:{version}",
    )  # fmt: skip
    raw = await run_tool(
        "skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{bench.registry.host}/bench:{version}"
    )
    last = (await layers_of(path))[-1]
    size = (path / "blobs" / last.replace(":", "/")).stat().st_size
    (bench.base / "manifest.json").write_bytes(raw)
    return corpus.packed(bench.base / "manifest.json").checksum, size


async def _by_tools(bench: Bench, version: int) -> float:
    """Seconds of skopeo copy into one layout, which keeps the layers it has, and of umoci unpack."""
    layout, bundle = bench.base / "layout", bench.fresh() / "bundle"
    seconds = await bench.alone(
        "skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false",
        f"docker://{bench.registry.host}/bench:{version}", f"oci:{layout}:{version}",
    )  # fmt: skip
    return seconds + await bench.alone("umoci", "unpack", "--image", f"{layout}:{version}", bundle)


async def _tool(*words: object) -> None:
    done = await asyncio.to_thread(
        subprocess.run, [str(word) for word in words], capture_output=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {done.stderr.decode()[-1000:]}")


def _report(found: dict[str, Found], oci: Json, size: int) -> Report:
    report = Report(f"artifacts, {size} MiB: from the request to the published release")
    data: Json = {"size_mib": size}
    for name, one in found.items():
        slowest, seconds = one.slowest
        remark = f"{one.seconds:.2f} s, {slowest} {seconds:.2f} s; goal: at most {GOALS[name]:g}"
        report.row(name, f"{one.ratio:.2f} ×", remark)
        for stage, times in one.stages.items():
            report.row(f"  {stage}", f"{statistics.median(times):.2f} s")
        report.row("  memory, lag", *_costs(one.ours))
        stages = {stage: statistics.median(times) for stage, times in one.stages.items()}
        data[name] = {"ratio": one.ratio, "goal": GOALS[name], "seconds": one.seconds, "stages": stages}
        data[name] |= _most(one.ours)
    for name, told in oci.items():
        ours, theirs = told["ours"], told["skopeo, umoci"]
        ratio = ours["seconds"] / theirs
        moved = f"{ours['fetched'] / MIB:.1f} MiB moved, the last layer has {told['last layer'] / MIB:.1f}"
        report.row(f"oci, {name}", f"{ratio:.2f} ×", f"{ours['seconds']:.2f} s, {theirs:.2f} s; {moved}")
        report.row("  memory, lag", *_costs([ours]))
        data[f"oci, {name}"] = {"ratio": ratio, "seconds": ours["seconds"], "theirs": theirs}
        data[f"oci, {name}"] |= {"moved": ours["fetched"], "last_layer": told["last layer"], **_most([ours])}
    report.data = data
    return report


def _most(ours: Sequence[Json]) -> Json:
    most: Callable[[str], float] = lambda name: max(one[name] for one in ours)  # noqa: E731
    return {"memory_mib": most("memory_mib"), "lag": most("lag")}


def _costs(ours: Sequence[Json]) -> tuple[str, str]:
    most = _most(ours)
    lag = f"loop late by {most['lag'] * 1000:.1f} ms at most"
    return f"{most['memory_mib']:.1f} MiB", f"{lag}; goals: {MEMORY_GOAL:g} MiB, {LAG_GOAL * 1000:g} ms"
