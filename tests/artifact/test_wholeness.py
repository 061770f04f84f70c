"""A release that was changed on this host: found by a look, cheaply or thoroughly, and put right."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.artifact import inventory
from agent.artifact.artifacts import Artifacts
from agent.artifact.inspection import inspect
from agent.artifact.inventory import DIRECTORY, FILE, HARD, LINK, Entry
from agent.artifact.store import Store
from agent.domain.artifact_spec import ArtifactSpec
from tests.artifact.specs import spec
from tests.artifact.trees import snapshot
from tests.kit.archives import Tar, header, padded
from tests.kit.artifact_server import ArtifactServer


def archive() -> bytes:
    return (
        Tar()
        .file("bin/web", b"program" * 1000, mode=0o755)
        .file("lib/data", b"data" * 1000)
        .file("lib/deep/inner", b"inner")
        .hardlink("lib/again", "lib/data")
        .symlink("current", "lib/data")
        .directory("empty")
        .end()
    )


async def delivered(artifacts: Artifacts, server: ArtifactServer) -> tuple[Path, ArtifactSpec]:
    data = archive()
    wanted = spec(server.put("web.tar", data), data)
    async with artifacts.deliver(wanted, "web") as delivery:
        return await delivery.published(), wanted


def rewritten(tree: Path) -> None:
    (tree / "bin/web").write_bytes(b"malicio" * 1000)


def rewritten_with_its_time(tree: Path) -> None:
    info = (tree / "bin/web").stat()
    (tree / "bin/web").write_bytes(b"malicio" * 1000)
    os.utime(tree / "bin/web", ns=(info.st_atime_ns, info.st_mtime_ns))


def cut(tree: Path) -> None:
    os.truncate(tree / "lib/data", 1)


def removed(tree: Path) -> None:
    (tree / "lib/deep/inner").unlink()


def without_directory(tree: Path) -> None:
    shutil.rmtree(tree / "lib/deep")


def other_mode(tree: Path) -> None:
    (tree / "lib/data").chmod(0o755)


def open_directory(tree: Path) -> None:
    (tree / "empty").chmod(0o777)


def other_link(tree: Path) -> None:
    (tree / "current").unlink()
    (tree / "current").symlink_to("/etc/passwd")


def file_for_link(tree: Path) -> None:
    (tree / "current").unlink()
    (tree / "current").write_bytes(b"data" * 1000)


def directory_for_file(tree: Path) -> None:
    (tree / "bin/web").unlink()
    (tree / "bin/web/more").mkdir(parents=True)


def link_for_directory(tree: Path) -> None:
    elsewhere = tree.parent.parent / "elsewhere"
    shutil.copytree(tree / "lib", elsewhere)
    shutil.rmtree(tree / "lib")
    (tree / "lib").symlink_to(elsewhere)


CHANGES = [
    rewritten, rewritten_with_its_time, cut, removed, without_directory, other_mode, open_directory,
    other_link, file_for_link, directory_for_file, link_for_directory,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
async def test_a_quick_look_finds_every_change_and_only_that_is_put_right(
    change: Callable[[Path], None], artifacts: Artifacts, server: ArtifactServer, store: Store
) -> None:
    tree, wanted = await delivered(artifacts, server)
    before = snapshot(tree)
    whole = await artifacts.look(tree.name, thorough=True)
    assert whole.whole
    assert not whole.extra
    change(tree)
    untouched = (tree / "bin").stat().st_ino
    found = await artifacts.look(tree.name, thorough=False)
    assert not found.whole
    store._seen.clear()  # seconds later
    mended = await artifacts.ensure(tree.name, wanted, "web", share=False)
    assert mended.changed == found.changed
    now = snapshot(tree)
    assert {path: entry[:3] for path, entry in now.items()} == {p: e[:3] for p, e in before.items()}
    assert (tree / "bin").stat().st_ino == untouched
    assert (await artifacts.look(tree.name, thorough=True)).whole
    assert store.releases() == [tree.name]


async def test_a_running_program_keeps_what_it_has_open_while_its_release_is_put_right(
    artifacts: Artifacts, server: ArtifactServer, store: Store
) -> None:
    tree, wanted = await delivered(artifacts, server)
    removed(tree)
    here = os.open(tree, os.O_RDONLY)
    with open(tree / "bin/web", "rb") as program:
        await artifacts.ensure(tree.name, wanted, "web", share=False, thorough=True)
        assert os.fstat(program.fileno()).st_ino == (tree / "bin/web").stat().st_ino
        assert os.stat("lib/deep/inner", dir_fd=here).st_size == 5
    os.close(here)


async def test_what_was_changed_and_cannot_be_fetched_again_is_told_and_stays(
    artifacts: Artifacts, server: ArtifactServer, store: Store
) -> None:
    tree, wanted = await delivered(artifacts, server)
    rewritten(tree)
    (server.root / "web.tar").unlink()
    with pytest.raises(Exception, match="404"):
        await artifacts.ensure(tree.name, wanted, "web", share=False, thorough=True)
    assert (await artifacts.look(tree.name, thorough=False)).changed == [b"bin/web"]
    assert store.releases() == [tree.name]


async def test_an_untouched_release_is_not_read_and_a_touched_one_is_read_once(
    artifacts: Artifacts, server: ArtifactServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, _ = await delivered(artifacts, server)
    os.utime(tree / "bin/web")
    monkeypatch.setattr("agent.artifact.inspection._SETTLED", 0)
    first = await artifacts.look(tree.name, thorough=False)
    assert first.whole
    assert first.read > 0
    second = await artifacts.look(tree.name, thorough=False)
    assert second.whole
    assert second.read == 0


async def test_what_does_not_belong_to_a_release_is_told_and_is_no_damage(
    artifacts: Artifacts, server: ArtifactServer
) -> None:
    tree, _ = await delivered(artifacts, server)
    (tree / "lib/__pycache__").mkdir()
    (tree / "lib/__pycache__/x").touch()
    (tree / "pid").touch()
    found = await artifacts.look(tree.name, thorough=True)
    assert found.whole
    assert found.extra == [b"lib/__pycache__", b"pid"]


async def test_without_a_whole_inventory_nothing_is_claimed_and_nothing_fetched(
    artifacts: Artifacts, server: ArtifactServer, store: Store
) -> None:
    tree, wanted = await delivered(artifacts, server)
    written = store.inventory(tree.name)
    written.write_bytes(written.read_bytes().replace(b"bin/web", b"bin/wub"))
    rewritten(tree)
    found = await artifacts.ensure(tree.name, wanted, "web", share=False, thorough=True)
    assert not found.known
    assert not found.changed
    assert len(await server.requests(1)) == 1


async def test_two_who_need_a_changed_release_fetch_it_once(
    artifacts: Artifacts, server: ArtifactServer, store: Store
) -> None:
    tree, wanted = await delivered(artifacts, server)
    rewritten(tree)
    store._seen.clear()
    await asyncio.gather(*(artifacts.ensure(tree.name, wanted, "web", share=False) for _ in range(3)))
    assert len(await server.requests(2)) == 2
    assert (await artifacts.look(tree.name, thorough=True)).whole


def shared_file(number: int, size: int = 100_000) -> bytes:
    return bytes([number]) * size


def two_of(server: ArtifactServer) -> list[ArtifactSpec]:
    wanted = []
    for version in (1, 2):
        tar = Tar().file("same", shared_file(7)).file("own", shared_file(version))
        tar = tar.file("moved" if version == 1 else "lib/moved", shared_file(8))
        tar = tar.file("mode", shared_file(9), mode=0o755 if version == 1 else 0o644)
        other = shared_file(10)
        tar = tar.raw(header("time", size=len(other), mtime=1_700_000_000 + version) + padded(other))
        data = tar.end()
        wanted.append(spec(server.put(f"web-{version}.tar", data), data))
    return wanted


async def both(artifacts: Artifacts, wanted: list[ArtifactSpec], *, share: bool) -> list[Path]:
    trees = []
    for one in wanted:
        async with artifacts.deliver(one, "web", share=share) as delivery:
            trees.append(await delivery.published())
    return trees


@pytest.mark.skipif(os.geteuid() != 0, reason="files are shared by root alone")
async def test_releases_share_the_files_that_nobody_can_tell_apart(
    artifacts: Artifacts, server: ArtifactServer
) -> None:
    one, two = await both(artifacts, two_of(server), share=True)
    assert (one / "same").stat().st_ino == (two / "same").stat().st_ino
    assert (one / "moved").stat().st_ino == (two / "lib/moved").stat().st_ino
    for name in ("own", "mode", "time"):
        assert (one / name).stat().st_ino != (two / name).stat().st_ino
    for tree in (one, two):
        assert (await artifacts.look(tree.name, thorough=False)).read == 0
        assert (await artifacts.look(tree.name, thorough=True)).whole
    assert one.name.partition("-")[2] != release_without_sharing(two_of(server)[0])


def release_without_sharing(wanted: ArtifactSpec) -> str:
    from agent.artifact.release import release_id

    return release_id(wanted, "web").partition("-")[2]


async def test_an_app_that_could_write_to_its_release_shares_nothing(
    artifacts: Artifacts, server: ArtifactServer
) -> None:
    one, two = await both(artifacts, two_of(server), share=False)
    (one / "same").write_bytes(b"the app writes here")
    assert (two / "same").read_bytes() == shared_file(7)


@pytest.mark.skipif(os.geteuid() != 0, reason="files are shared by root alone")
async def test_a_file_that_was_changed_is_not_passed_on_to_the_next_release(
    artifacts: Artifacts, server: ArtifactServer
) -> None:
    first, second = two_of(server)
    (one,) = await both(artifacts, [first], share=True)
    with open(one / "same", "r+b") as file:
        file.write(b"changed")
    (two,) = await both(artifacts, [second], share=True)
    assert (two / "same").read_bytes() == shared_file(7)
    assert (await artifacts.look(two.name, thorough=True)).whole


ENTRIES = st.dictionaries(
    st.binary(min_size=1).filter(lambda path: b"\0" not in path),
    st.builds(
        Entry,
        st.just(FILE),
        st.integers(0, 0o7777),
        *[st.integers(0, 2**63)] * 4,
        st.text("0123456789abcdef", min_size=64, max_size=64),
    )
    | st.builds(
        Entry, st.sampled_from([LINK, HARD, DIRECTORY]), target=st.binary().filter(lambda t: b"\0" not in t)
    ),
)


@given(entries=ENTRIES, data=st.data())
def test_an_inventory_is_read_as_it_was_written_and_a_damaged_one_not_at_all(
    entries: dict[bytes, Entry], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("inventory") / "one"
    inventory.write(path, entries, sync=False)
    assert inventory.read(path) == entries
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assert inventory.read(path) in (None, entries)


def test_a_tree_that_is_gone_is_all_changed(tmp_path: Path) -> None:
    inventory.write(tmp_path / "written", {b"a": Entry(DIRECTORY)})
    assert inspect(tmp_path / "gone", tmp_path / "written", thorough=False).changed == [b"a"]


class Killed(BaseException):
    """Nothing after it is done, as after a kill -9."""


async def test_killed_in_the_middle_of_a_repair_each_file_is_old_or_new_and_the_next_one_ends_it(
    artifacts: Artifacts, server: ArtifactServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, wanted = await delivered(artifacts, server)
    before = snapshot(tree)
    ways = (rewritten, cut, without_directory, other_link)
    rename = os.rename
    for last in range(1, 9):
        for change in ways:
            change(tree)
        damaged = snapshot(tree)
        left = last

        def killing(source: bytes | Path, target: bytes | Path) -> None:
            nonlocal left
            if os.fsencode(target).startswith(os.fsencode(tree) + b"/"):
                left -= 1
                if left == 0:
                    raise Killed
            rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("agent.artifact.mending.os.rename", killing)
            try:
                await artifacts.ensure(tree.name, wanted, "web", share=False, thorough=True)
            except Killed:
                pass
        for path, entry in snapshot(tree).items():
            assert entry[:3] in (before[path][:3], damaged.get(path, before[path])[:3])
        store.sweep()  # the next agent
        await artifacts.ensure(tree.name, wanted, "web", share=False, thorough=True)
        assert (await artifacts.look(tree.name, thorough=True)).whole
        assert store.releases() == [tree.name]
