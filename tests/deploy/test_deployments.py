"""Deployments, generations and instances on a real file system."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.deploy.deployments import Deployments
from agent.deploy.generations import write_generation
from agent.deploy.instance import build_instance, point_config
from agent.deploy.layout import FORMAT, AppDirectory, DataDirectory
from agent.domain.errors import OperatorNeeded
from agent.domain.model import Pair
from agent.domain.spec import AppSpec, ManagedFile, RunSpec
from agent.kit.files import sync_directory


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    return opened(tmp_path / "data")


def opened(root: Path) -> DataDirectory:
    directory = DataDirectory(root)
    directory.open()
    return directory


def app(number: int) -> AppSpec:
    return AppSpec(
        name="web",
        version=f"{number}",
        run=RunSpec(command=("bin/web",)),
        files=(ManagedFile(target="etc/web.conf", content=f"n={number}".encode()),),
    )


def deploy(directory: AppDirectory, spec: AppSpec, release: str = "") -> Pair:
    pair = Pair(spec.digest, release, spec.files_digest, spec.version, "c" * 40, "sha256:0", 1.0)
    write_generation(directory.generations, spec, None)
    deployments = Deployments(directory)
    deployments.write(deployments.describe(spec, pair))
    return pair


def test_a_deployment_read_back_is_the_one_written(data: DataDirectory) -> None:
    directory = data.app("web")
    pair = deploy(directory, app(1))
    found = Deployments(directory).get(pair.spec)
    assert found is not None
    assert (found.pair, found.spec) == (pair, app(1))
    assert found.generation is not None
    assert (found.generation / "etc/web.conf").read_bytes() == b"n=1"


def test_a_deployment_that_another_commit_brings_back_is_read_with_that_commit(data: DataDirectory) -> None:
    directory = data.app("web")
    deployments = Deployments(directory)
    pair = deploy(directory, app(1))
    assert deployments.get(pair.spec) is not None
    later = replace(pair, commit="d" * 40)
    deployments.write(deployments.describe(app(1), later))
    found = deployments.get(pair.spec)
    assert found is not None
    assert found.pair.commit == "d" * 40


def test_links_move_by_rename_and_name_whole_deployments_only(data: DataDirectory) -> None:
    directory = data.app("web")
    deployments = Deployments(directory)
    for number in (1, 2):
        pair = deploy(directory, app(number))
        deployments.link("current", deployments.get(pair.spec))
    current = deployments.linked("current")
    assert current is not None
    assert current.spec.version == "2"
    assert not os.path.isabs(os.readlink(directory.root / "current"))
    (directory.deployments / current.pair.spec / "spec").write_bytes(b"half")
    assert deployments.linked("current") is None


def test_a_deployment_whose_release_is_gone_is_not_whole(data: DataDirectory) -> None:
    directory = data.app("web")
    pair = deploy(directory, app(1), release="missing")
    assert Deployments(directory).get(pair.spec) is None


def test_retention_never_removes_what_is_named(data: DataDirectory) -> None:
    directory = data.app("web")
    deployments = Deployments(directory)
    pairs = [deploy(directory, app(number)) for number in range(8)]
    for age, pair in enumerate(pairs):
        os.utime(directory.deployments / pair.spec, (age, age))
    deployments.retain(2, [pairs[0].spec])
    left = {d.spec.version for d in deployments.all()}
    assert "0" in left
    assert "7" in left
    assert len(left) == 3
    assert len(list(directory.generations.iterdir())) == 3


@pytest.mark.parametrize("way", ["retain", "drop"])
def test_a_deployment_loses_its_name_for_good_before_any_part_of_it_is_removed(
    data: DataDirectory, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    directory = data.app("web")
    deployments = Deployments(directory)
    old, kept = (deploy(directory, app(number)).spec for number in range(2))
    seen: list[list[tuple[bool, set[str]]]] = []

    def watched(path: str | Path) -> None:
        parts = {one: set(os.listdir(one)) for one in directory.deployments.iterdir()}
        seen.append([(one.name == old, names) for one, names in parts.items() if one.name != kept])
        sync_directory(path)

    monkeypatch.setattr("agent.deploy.deployments.sync_directory", watched)
    if way == "retain":
        deployments.retain(1, [kept, "another one"])
    else:
        deployments.drop(old)
    assert seen == [[(False, {"spec", "pair", "config"})]]
    assert [path.name for path in directory.deployments.iterdir()] == [kept]


def test_forgetting_an_app_keeps_its_own_directories(data: DataDirectory) -> None:
    directory = data.app("web")
    deployments = Deployments(directory)
    deployments.link("current", deployments.get(deploy(directory, app(1)).spec))
    (directory.dirs / "state").mkdir()
    (directory.dirs / "state" / "precious").touch()
    deployments.forget()
    assert deployments.linked("current") is None
    assert (directory.dirs / "state" / "precious").exists()


def test_a_second_agent_is_told_who_has_the_directory(data: DataDirectory) -> None:
    with pytest.raises(OperatorNeeded, match=f"pid {os.getpid()}") as caught:
        DataDirectory(data.root).open()
    assert caught.value.reason == "DataInUse"
    data.close()
    opened(data.root).close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / "format").write_text(f"{FORMAT + 1}\n")
    with pytest.raises(OperatorNeeded) as caught:
        DataDirectory(tmp_path).open()
    assert caught.value.reason == "DataNewer"


def test_an_unwritable_directory_is_an_operators_matter(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperatorNeeded) as caught:
        DataDirectory(tmp_path / "file" / "data").open()
    assert caught.value.reason == "DataNotUsable"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    tree = tmp_path / "release"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/web").write_text("program")
    (tree / "etc").mkdir()
    (tree / "etc/defaults").write_text("from the release")
    (tree / "etc/web.conf").write_text("sample")
    return tree


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tree = tmp_path / "config"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/web.conf").write_text("rendered")
    return tree


def test_an_instance_shows_release_and_rendered_files_as_one(
    tmp_path: Path, release: Path, config: Path
) -> None:
    instance, state = tmp_path / "instance", tmp_path / "state"
    state.mkdir()
    build_instance(instance, release, config, {"data": state})
    assert (instance / "bin/web").read_text() == "program"
    assert (instance / "etc/defaults").read_text() == "from the release"
    assert (instance / "etc/web.conf").read_text() == "rendered"
    (instance / "data/file").write_text("x")
    assert (state / "file").exists()


def test_a_reload_shows_the_new_files_under_the_old_names(
    tmp_path: Path, release: Path, config: Path
) -> None:
    instance = tmp_path / "instance"
    build_instance(instance, release, config, {})
    newer = tmp_path / "newer"
    (newer / "etc").mkdir(parents=True)
    (newer / "etc/web.conf").write_text("rendered again")
    (newer / "etc/more.conf").write_text("new")
    (newer / "top.conf").write_text("new too")
    point_config(instance, newer)
    assert (instance / "etc/web.conf").read_text() == "rendered again"
    assert (instance / "etc/more.conf").read_text() == "new"
    assert (instance / "top.conf").read_text() == "new too"
    assert (instance / "etc/defaults").read_text() == "from the release"


def test_a_directory_of_the_apps_may_lie_inside_one_of_the_release(tmp_path: Path, release: Path) -> None:
    instance, cache = tmp_path / "instance", tmp_path / "cache"
    cache.mkdir()
    build_instance(instance, release, None, {"etc/cache": cache})
    assert (instance / "etc/defaults").read_text() == "from the release"
    (instance / "etc/cache/x").touch()
    assert (cache / "x").exists()
    assert not (release / "etc/cache").exists()


def test_a_generation_has_the_modes_that_were_asked_for_and_appears_whole(tmp_path: Path) -> None:
    spec = AppSpec(
        name="web",
        version="1",
        files=(
            ManagedFile(target="a/b/c.conf", content=b"c", mode=0o600),
            ManagedFile(target="run.sh", content=b"#!", mode=0o755),
        ),
    )
    path = write_generation(tmp_path, spec, None)
    assert path is not None
    assert (path / "a/b/c.conf").stat().st_mode & 0o777 == 0o600
    assert (path / "run.sh").stat().st_mode & 0o777 == 0o755
    assert write_generation(tmp_path, spec, None) == path
    assert [p.name for p in tmp_path.iterdir()] == [spec.files_digest]


def test_what_an_agent_that_was_killed_left_half_written_goes_when_the_next_one_opens(tmp_path: Path) -> None:
    root = tmp_path / "data"
    opened(root).close()
    there = sorted(path.name for path in root.iterdir())
    for half in (".box.4711.tmp", ".4711~"):
        (root / half).write_bytes(b"half")
    opened(root).close()
    assert sorted(path.name for path in root.iterdir()) == there


def test_of_an_app_that_is_forgotten_the_current_link_goes_last(
    data: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = data.app("web")
    deployments = Deployments(directory)
    deployed = deployments.get(deploy(directory, app(1)).spec)
    for link in ("current", "good"):
        deployments.link(link, deployed)
    removed: list[str] = []
    unlink = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    deployments.forget()
    assert removed == ["good", "current"]  # between the two the app is still known, and removed again
