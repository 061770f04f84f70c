"""Places outside: made, changed and taken away whole, also by a process that is killed in between."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent.deploy.deployments import Deployment, Deployments, pair_of
from agent.deploy.generations import write_generation
from agent.deploy.layout import DataDirectory
from agent.deploy.places import Places, build_view
from agent.domain.errors import OperatorNeeded
from agent.domain.spec import AppSpec, ManagedFile, PlaceSpec
from tests.kit.kill_points import killed_before_each_change


class Scene:
    """One app `docs` with places below `root`."""

    def __init__(self, base: Path) -> None:
        self.root = base / "srv"
        self.root.mkdir(parents=True)
        self.data = DataDirectory(base / "data")
        for directory in (self.data.apps, self.data.store / "trees"):
            directory.mkdir(parents=True)
        self.directory = self.data.app("docs")
        self.deployments = Deployments(self.directory)
        self.places = Places(self.directory, self.data.root, [self.root])

    def deployment(self, version: str, *places: PlaceSpec) -> Deployment:
        """Of a release and a file, which both say the version; written, but not current."""
        tree = self.data.store / "trees" / f"release-{version}"
        (tree / "etc").mkdir(parents=True, exist_ok=True)
        (tree / "index").write_text(version)
        files = (ManagedFile(target="etc/conf", content=version.encode(), mode=0o644),)
        spec = AppSpec(name="docs", version=version, files=files, places=places)
        write_generation(self.directory.generations, spec, None)
        found = self.deployments.describe(spec, pair_of(spec, tree.name, "c"))
        self.deployments.write(found)
        return found

    def put(self, deployment: Deployment) -> None:
        """What the step does."""
        self.places.check(deployment.spec.places)
        build_view(deployment)
        self.deployments.link("current", deployment)
        self.places.settle(deployment.spec.places)

    def links(self) -> dict[str, str]:
        """Every link below the root, and what it shows: a version, or ""."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_symlink():
                inner = path / "index" if path.is_dir() else path
                found[str(path.relative_to(self.root))] = inner.read_text() if inner.exists() else ""
        return found


def everywhere(scene: Scene) -> list[PlaceSpec]:
    return [
        PlaceSpec(path=f"{scene.root}/www/docs"),
        PlaceSpec(path=f"{scene.root}/conf.d/docs.conf", inner="etc/conf"),
    ]


def test_a_process_killed_at_any_moment_shows_the_old_or_the_new_whole_and_can_be_followed(
    tmp_path: Path,
) -> None:
    scenes: list[Scene] = []

    def before() -> None:
        scenes.append(scene := Scene(tmp_path / str(len(scenes))))
        scene.put(scene.deployment("1", *everywhere(scene)))

    def work() -> None:
        scene = scenes[-1]
        scene.put(scene.deployment("2", *everywhere(scene)))

    shown = set()
    for changes in killed_before_each_change(work, before):
        scene = scenes[-1]
        links = {name: text for name, text in scene.links().items() if not name.startswith("www/.")}
        assert set(links) == {"www/docs", "conf.d/docs.conf"}, changes
        assert len(set(links.values())) == 1, (changes, links)
        shown |= set(links.values())
        scene.put(scene.deployment("2", *everywhere(scene)))
        assert scene.links() == {"www/docs": "2", "conf.d/docs.conf": "2"}
        shutil.rmtree(scene.root.parent)
    assert shown == {"1", "2"}


def test_whatever_a_killed_process_made_is_known_and_can_be_taken_away(tmp_path: Path) -> None:
    scenes: list[Scene] = []

    def before() -> None:
        scenes.append(Scene(tmp_path / str(len(scenes))))

    def work() -> None:
        scene = scenes[-1]
        scene.put(scene.deployment("1", *everywhere(scene)))

    for changes in killed_before_each_change(work, before):
        scene = scenes[-1]
        assert set(scene.links().values()) <= {"1"}, changes  # nothing that is there leads nowhere
        scene.places.settle(())
        assert scene.links() == {}, changes
        shutil.rmtree(scene.root.parent)


def test_places_that_change_are_made_and_taken_away(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    www, conf = everywhere(scene)
    scene.put(scene.deployment("1", www))
    scene.put(scene.deployment("2", conf, PlaceSpec(path=f"{scene.root}/www/other")))
    assert scene.links() == {"conf.d/docs.conf": "2", "www/other": "2"}
    assert scene.places.drifted([conf]) == []
    (scene.root / "conf.d/docs.conf").unlink()
    assert scene.places.drifted([conf]) == [conf.path]
    scene.places.settle([conf])
    assert scene.links() == {"conf.d/docs.conf": "2"}


def test_what_was_put_there_instead_of_a_link_of_ours_is_not_taken_away(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    www, _ = everywhere(scene)
    scene.put(scene.deployment("1", www))
    os.unlink(www.path)
    Path(www.path).write_text("mine")
    with pytest.raises(OperatorNeeded, match="is at"):
        scene.places.settle([www])
    scene.places.settle(())
    assert Path(www.path).read_text() == "mine"


def test_a_directory_on_the_way_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    www, _ = everywhere(scene)
    scene.put(scene.deployment("1", www))
    elsewhere = tmp_path / "elsewhere"
    (scene.root / "www").rename(elsewhere)
    (scene.root / "www").symlink_to(elsewhere)
    with pytest.raises(OperatorNeeded, match="leads through www"):
        scene.places.settle([www])
    scene.places.settle(())
    assert os.listdir(elsewhere) == ["docs"]  # it is not ours to reach any more


def test_only_the_longest_allowed_directory_above_counts_and_the_rest_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    places = Places(scene.directory, scene.data.root, [tmp_path, scene.root])
    places.check([PlaceSpec(path=f"{scene.root}/new/docs")])
    for path in (f"{scene.data.root}/docs", f"{scene.data.root}/apps/docs/current"):
        with pytest.raises(OperatorNeeded, match="own data directory"):
            places.check([PlaceSpec(path=path)])
    with pytest.raises(OperatorNeeded, match="no directory that the agent's settings allow"):
        scene.places.check([PlaceSpec(path=f"{scene.root}x/docs")])
