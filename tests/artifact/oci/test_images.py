from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import random
from pathlib import Path

import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.errors import Failure, Permanent
from agent.kit.machine import architecture
from tests.artifact.conftest import assert_no_traces
from tests.artifact.trees import snapshot
from tests.kit.archives import Tar
from tests.kit.registry import INDEX, Registry, layers_of, layout, need, run

BIG = random.Random(1).randbytes(3_000_000)


def wanted(registry: Registry, name: str, digest: str, *, strip: int = 0) -> ArtifactSpec:
    """The image `name` at this digest."""
    return ArtifactSpec(
        url=f"oci://{registry.host}/{name}",
        checksum=Checksum(algorithm="sha256", hex=digest.removeprefix("sha256:")),
        strip=strip,
    )


async def bring(artifacts: Artifacts, spec: ArtifactSpec, *, share: bool = False) -> Path:
    """The release's tree."""
    async with artifacts.deliver(spec, "web", share=share) as delivery:
        path = await delivery.published()
        assert await delivery.verified() == f"sha256:{spec.checksum.hex}"
    return path


async def fail(artifacts: Artifacts, spec: ArtifactSpec) -> Failure:
    """The failure, which leaves nothing half done."""
    async with artifacts.deliver(spec, "web") as delivery:
        with pytest.raises(Failure) as caught:
            await delivery.published()
    assert not artifacts.store.has(delivery.release)
    assert_no_traces(artifacts.store)
    return caught.value


def base(content: bytes = b"runtime 1") -> bytes:
    """The large layer that rarely changes."""
    return Tar().file("opt/runtime", content, mode=0o755).file("opt/data", BIG).end()


def small(version: bytes) -> bytes:
    """The small layer that often does."""
    return Tar().file("app/web", version, mode=0o755).file("app/VERSION", version).end()


async def test_two_layers_become_one_tree_and_a_second_release_moves_only_the_changed_one(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    first = await layout(tmp_path, [base(), small(b"1.0")], "first")
    spec = wanted(registry, "legacy:1.0", await registry.copy(first, "legacy:1.0"))
    one = await bring(artifacts, spec, share=True)
    assert (one / "app/web").read_bytes() == b"1.0"
    assert (one / "opt/data").read_bytes() == BIG
    assert os.access(one / "opt/runtime", os.X_OK)

    second = await layout(tmp_path, [base(), small(b"2.0")], "second")
    digest = await registry.copy(second, "legacy:2.0")
    before = registry.asked("GET", "/blobs/")
    told: list[tuple[int, int]] = []
    spec = wanted(registry, "legacy:2.0", digest)
    note = lambda done, total: told.append((done, total))  # noqa: E731
    async with artifacts.deliver(spec, "web", note, share=True) as delivery:
        two = await delivery.published()
        moved = await delivery.fetched()
    changed = (await layers_of(second))[1]
    assert registry.asked("GET", "/blobs/")[len(before) :] == [f"/v2/legacy/blobs/{changed}"]
    size = (second / "blobs" / changed.replace(":", "/")).stat().st_size
    assert moved == size
    assert told[-1] == (size, size)
    assert (two / "app/web").read_bytes() == b"2.0"
    assert (one / "app/web").read_bytes() == b"1.0"
    assert (two / "opt/data").read_bytes() == BIG
    shared = (one / "opt/data").stat().st_ino == (two / "opt/data").stat().st_ino
    assert shared == (os.geteuid() == 0)  # copies where an app could be the agent's own user


async def test_what_is_above_hides_what_is_below(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    lower = (
        Tar()
        .file("keep", b"1").file("gone", b"1").file("changed", b"1", mode=0o755)
        .file("dir/a", b"1").file("dir/b", b"1")
        .file("opaque/old", b"1").file("opaque/deep/old", b"1")
        .file("tree/x", b"1").file("becomes-file/x", b"1").file("becomes-dir", b"1")
        .symlink("link", "keep").symlink("absolute", "/dir/a")
        .end()
    )  # fmt: skip
    upper = (
        Tar()
        .file(".wh.gone").file("changed", b"2").file("dir/.wh.a").file("dir/c", b"2")
        .file("opaque/new", b"2").file("opaque/.wh..wh..opq")
        .file(".wh.tree").file("tree/y", b"2").file("becomes-file", b"2").file("becomes-dir/x", b"2")
        .symlink("link", "changed")
        .end()
    )  # fmt: skip
    top = Tar().file("dir/a", b"3").file(".wh.nothing").end()
    image = await layout(tmp_path, [lower, upper, top])
    tree = await bring(artifacts, wanted(registry, "union:1", await registry.copy(image, "union:1")))
    found = {name: entry for name, entry in snapshot(tree).items() if entry[0] != "directory"}
    contents = {name: entry[2] if entry[0] == "file" else entry[1] for name, entry in found.items()}
    assert contents == {
        b"keep": b"1", b"changed": b"2", b"dir/a": b"3", b"dir/b": b"1", b"dir/c": b"2", b"opaque/new": b"2",
        b"tree/y": b"2", b"becomes-file": b"2", b"becomes-dir/x": b"2", b"link": b"changed",
        b"absolute": b"dir/a",
    }  # fmt: skip
    assert found[b"changed"][1] == "0o644"


async def test_the_tree_is_what_umoci_unpacks(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    rng = random.Random(7)
    layers = []
    for number in range(4):
        tar = Tar()
        for name in sorted(
            {f"{rng.choice('abc')}/{rng.choice('def')}/{rng.choice('ghijk')}" for _ in range(9)}
        ):
            folder, _, base_name = name.rpartition("/")
            if number and rng.random() < 0.3:
                tar.file(f"{folder}/.wh.{base_name}")
            else:
                tar.file(name, rng.randbytes(rng.randrange(2000)), mode=rng.choice([0o644, 0o755]))
        if number == 2:
            tar.file("a/.wh..wh..opq").symlink("a-link", "b/d")
        layers.append(tar.end())
    image = await layout(tmp_path, layers)
    tree = await bring(artifacts, wanted(registry, "same:1", await registry.copy(image, "same:1")))
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    await run("umoci", "raw", "unpack", *rootless, "--image", f"{image}:latest", str(tmp_path / "theirs"))
    theirs = snapshot(tmp_path / "theirs")
    ours = snapshot(tree)
    for shot in (ours, theirs):
        for path, entry in list(shot.items()):
            if entry[0] == "directory":
                shot[path] = ("directory",)
            elif entry[0] == "file":
                shot[path] = entry[:-1]  # ours has other names in the store
    assert ours == theirs


async def test_an_image_that_buildah_built_is_taken(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    need("buildah")
    if os.geteuid() != 0:
        pytest.skip("buildah without root needs subordinate users")
    (tmp_path / "web").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "web").chmod(0o755)
    storage = [
        "--root",
        str(tmp_path / "storage"),
        "--runroot",
        str(tmp_path / "run"),
        "--storage-driver",
        "vfs",
    ]
    name = (await run("buildah", *storage, "from", "scratch")).decode().strip()
    await run("buildah", *storage, "copy", name, str(tmp_path / "web"), "/bin/web")
    await run(
        "buildah", *storage, "commit", "-q", "--tls-verify=false", name, f"docker://{registry.host}/built:1"
    )
    raw = await run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/built:1")
    digest = hashlib.sha256(raw).hexdigest()
    tree = await bring(artifacts, wanted(registry, "built:1", digest))
    assert (tree / "bin/web").read_bytes() == b"#!/bin/sh\n"
    assert os.access(tree / "bin/web", os.X_OK)


async def test_of_an_index_the_platform_of_the_host_is_taken(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    here = architecture()
    other = "arm64" if here != "arm64" else "amd64"
    entries = []
    for arch in (other, here):
        image = await layout(tmp_path, [Tar().file("bin/web", arch.encode(), mode=0o755).end()], arch)
        digest = await registry.copy(image, f"multi:{arch}")
        raw = await run(
            "skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/multi:{arch}"
        )
        entries.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": len(raw),
                "platform": {"os": "linux", "architecture": arch},
            }
        )  # fmt: skip
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    digest = await registry.manifest("multi", "1", index)
    tree = await bring(artifacts, wanted(registry, "multi:1", digest))
    assert (tree / "bin/web").read_text() == here
    lacking = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries[:1]}
    failure = await fail(
        artifacts, wanted(registry, "multi:2", await registry.manifest("multi", "2", lacking))
    )
    assert failure.reason == "PlatformMissing"
    assert f"linux/{other}" in str(failure)


async def test_a_docker_image_with_gzip_and_one_with_zstd_are_taken(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    image = await layout(tmp_path, [small(b"1.0")])
    for name, options in (
        ("docker:1", ("--format", "v2s2")),
        ("zstd:1", ("--dest-compress-format", "zstd", "--dest-compress", "--format", "oci")),
    ):
        digest = await registry.copy(image, name, *options)
        tree = await bring(artifacts, wanted(registry, name, digest))
        assert (tree / "app/web").read_bytes() == b"1.0"


async def test_one_titled_file_is_taken_like_a_download_and_several_lie_where_their_titles_say(
    registry: Registry, artifacts: Artifacts
) -> None:
    program = b"\x7fELF" + BIG[:2000]
    single = await registry.artifact("tool", "1", {"tool-linux-amd64": program})
    tree = await bring(artifacts, wanted(registry, "tool:1", single))
    assert (tree / "bin/web").read_bytes() == program
    archive = gzip.compress(Tar().file("top/bin/x", b"x", mode=0o755).end())
    packed = await registry.artifact("tool", "2", {"tool.tar.gz": archive})
    tree = await bring(artifacts, wanted(registry, "tool:2", packed, strip=1))
    assert (tree / "bin/x").read_bytes() == b"x"
    several = await registry.artifact("tool", "3", {"bin/tool": program, "etc/tool.conf": b"a = 1\n"})
    tree = await bring(artifacts, wanted(registry, "tool:3", several))
    assert (tree / "bin/tool").read_bytes() == program
    assert (tree / "etc/tool.conf").read_bytes() == b"a = 1\n"


@pytest.mark.parametrize("title", ["../evil", "/etc/passwd", "a/../../b", "."])
async def test_titles_that_leave_the_tree_are_refused(
    registry: Registry, artifacts: Artifacts, title: str
) -> None:
    digest = await registry.artifact("evil", "1", {"fine": b"x", title: b"y"})
    failure = await fail(artifacts, wanted(registry, "evil:1", digest))
    assert isinstance(failure, Permanent)
    assert failure.reason == "ArchiveRefused"


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([Tar().file("../x", b"1").end()], "ArchiveRefused"),
        ([Tar().symlink("a", "../../etc").end()], "ArchiveRefused"),
        ([Tar().symlink("d/up", "..").end(), Tar().symlink("out", "d/up/../x").end()], "ArchiveRefused"),
        ([Tar().file("d/.wh...", b"").end()], "ArchiveRefused"),
        ([Tar().file("d/.wh.", b"").end()], "ArchiveRefused"),
        ([Tar().file(".wh.only", b"").end()], "ArchiveEmpty"),
    ],
)
async def test_layers_that_would_do_harm_are_refused(
    registry: Registry, artifacts: Artifacts, layers: list[bytes], reason: str
) -> None:
    descriptors = [await registry.blob("harm", layer) for layer in layers]
    digest = await registry.manifest(
        "harm", "1",
        {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": await registry.blob("harm", b"{}"), "layers": descriptors,
        },
    )  # fmt: skip
    failure = await fail(artifacts, wanted(registry, "harm:1", digest))
    assert isinstance(failure, Permanent)
    assert failure.reason == reason


async def test_a_damaged_blob_is_found_and_nothing_of_it_is_used(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    image = await layout(tmp_path, [base(), small(b"1.0")])
    digest = await registry.copy(image, "legacy:1")
    registry.damage((await layers_of(image))[1])
    failure = await fail(artifacts, wanted(registry, "legacy:1", digest))
    assert isinstance(failure, Permanent)
    assert failure.reason == "ChecksumMismatch"


async def test_the_digest_decides_and_a_tag_that_moved_is_told(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    first = await layout(tmp_path, [small(b"1.0")], "first")
    second = await layout(tmp_path, [small(b"2.0")], "second")
    old = await registry.copy(first, "app:stable")
    new = await registry.copy(second, "app:stable")
    assert old != new
    async with artifacts.deliver(wanted(registry, "app:stable", old), "web") as delivery:
        assert ((await delivery.published()) / "app/web").read_bytes() == b"1.0"
        assert new in delivery.warning
    async with artifacts.deliver(wanted(registry, "app:stable", new), "web") as delivery:
        await delivery.published()
        assert delivery.warning == ""
    lost = wanted(registry, "app:stable", "0" * 64)
    failure = await fail(artifacts, lost)
    assert failure.reason == "TagMoved"
    assert new in str(failure)


async def test_a_tag_is_pinned_to_what_it_names_and_again_when_it_moves(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    open_spec = ArtifactSpec(url=f"oci://{registry.host}/app:latest", checksum=Checksum(algorithm="sha256"))
    with pytest.raises(Permanent, match="nothing of that name"):
        await artifacts.pin(open_spec)
    for version in (b"1.0", b"2.0"):
        image = await layout(tmp_path, [small(version)], version.decode())
        digest = await registry.copy(image, "app:latest")
        pinned = await artifacts.pin(open_spec)
        assert f"sha256:{pinned.checksum.hex}" == digest
        assert await artifacts.reach(wanted(registry, f"app@{digest}", "")) is None
        assert ((await bring(artifacts, pinned)) / "app/web").read_bytes() == version


async def test_a_tree_is_stripped_of_its_leading_directories(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    layers = [
        Tar().file("opt/app/bin/web", b"1", mode=0o755).file("opt/app/old", b"1").file("etc/x", b"1").end(),
        Tar().file("opt/app/.wh.old").file("opt/app/new", b"2").end(),
    ]
    image = await layout(tmp_path, layers)
    digest = await registry.copy(image, "app:1")
    tree = await bring(artifacts, wanted(registry, "app:1", digest, strip=2))
    assert sorted(path.name for path in tree.iterdir()) == ["bin", "new"]
    failure = await fail(artifacts, wanted(registry, "app:1", digest, strip=9))
    assert failure.reason == "ArchiveEmpty"


async def test_layers_live_as_long_as_a_release_is_made_of_them(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    store = artifacts.store
    releases, layers = [], []
    for version in (b"1.0", b"2.0"):
        image = await layout(tmp_path, [base(), small(version)], version.decode())
        digest = await registry.copy(image, f"app:{version.decode()}")
        releases.append((await bring(artifacts, wanted(registry, "app", digest))).name)
        layers.append({digest.replace(":", "-") for digest in await layers_of(image)})
    there = {path.name for path in (store.root / "layers").iterdir()}
    assert there == layers[0] | layers[1]
    await store.collect([releases[1]])
    assert {path.name for path in (store.root / "layers").iterdir()} == layers[1]
    assert (store.path(releases[1]) / "opt/data").read_bytes() == BIG
    await store.collect([])
    assert list((store.root / "layers").iterdir()) == []
    assert list((store.root / "made-of").iterdir()) == []


async def test_two_apps_that_share_a_layer_fetch_it_once(
    registry: Registry, artifacts: Artifacts, tmp_path: Path
) -> None:
    digests = []
    for version in (b"1.0", b"2.0"):
        image = await layout(tmp_path, [base(), small(version)], version.decode())
        digests.append(await registry.copy(image, f"app:{version.decode()}"))
    await asyncio.gather(*(bring(artifacts, wanted(registry, "app", digest)) for digest in digests))
    blobs = registry.asked("GET", "/blobs/")
    assert len(blobs) == len(set(blobs)) == 3


@pytest.mark.parametrize("user", [0, 1000])
async def test_where_the_app_is_the_agents_own_user_each_release_has_copies(
    user: int, registry: Registry, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    image = await layout(tmp_path, [base(), small(b"1.0")])
    spec = wanted(registry, "app:1", await registry.copy(image, "app:1"))
    tree = await bring(artifacts, spec, share=user != 0)
    assert (tree / "opt/data").read_bytes() == BIG
    assert (tree / "opt/data").stat().st_nlink == 1
    assert (tree / "opt/data").stat().st_mtime == 1_700_000_000


async def test_a_delivery_that_is_left_leaves_only_whole_layers(
    registry: Registry, artifacts: Artifacts, store: Store, tmp_path: Path
) -> None:
    image = await layout(tmp_path, [base(), small(b"1.0")])
    digest = await registry.copy(image, "app:1")
    spec = wanted(registry, "app:1", digest)
    reached = asyncio.Event()
    async with artifacts.deliver(spec, "web", lambda *_: reached.set()):
        async with asyncio.timeout(30):
            await reached.wait()
    assert_no_traces(store)
    for layer in (store.root / "layers").iterdir():
        assert (layer / "marks").exists()
    assert ((await bring(artifacts, spec)) / "app/web").read_bytes() == b"1.0"


async def test_a_layer_that_was_changed_on_disk_is_fetched_again_and_put_right(
    registry: Registry, artifacts: Artifacts, store: Store, tmp_path: Path
) -> None:
    image = await layout(tmp_path, [base(), small(b"1.0")])
    spec = wanted(registry, "app:1", await registry.copy(image, "app:1"))
    tree = await bring(artifacts, spec, share=True)
    with open(tree / "opt/data", "r+b") as shared:  # with root the layer's file, too
        shared.write(b"changed")
    before = registry.asked("GET", "/blobs/")
    found = await artifacts.ensure(tree.name, spec, "web", share=True, thorough=True)
    assert found.changed == [b"opt/data"]
    assert (tree / "opt/data").read_bytes() == BIG
    assert len(registry.asked("GET", "/blobs/")) - len(before) == (1 if os.geteuid() == 0 else 0)
    assert (await artifacts.look(tree.name, thorough=True)).whole
    assert store.releases() == [tree.name]
