from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.domain.errors import Failure, OperatorNeeded, Permanent
from tests.artifact.specs import big, release, spec


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The directory that file:// artifacts may come from."""
    directory = tmp_path / "files"
    directory.mkdir()
    return directory


async def fail(artifacts: Artifacts, url: str) -> Failure:
    """The failure of a delivery from `url`."""
    async with artifacts.deliver(spec(url, b"x"), "web") as delivery:
        with pytest.raises(Failure) as caught:
            await delivery.published()
    return caught.value


@pytest.mark.parametrize("size", [10_000, 9_000_000])
async def test_a_file_is_delivered(size: int, artifacts: Artifacts, files: Path) -> None:
    data = big(size) if size > 1_000_000 else release(b"1.0", size)
    path = files / "a web.tar"
    path.write_bytes(data)
    async with artifacts.deliver(spec(path.as_uri(), data), "web") as delivery:
        assert await delivery.fetched() == len(data)
        await delivery.published()
    async with artifacts.deliver(
        spec(f"file://localhost{path}".replace(" ", "%20"), data), "web"
    ) as delivery:
        assert await delivery.fetched() == 0


async def test_links_within_the_allowed_directory_are_followed(artifacts: Artifacts, files: Path) -> None:
    data = release()
    (files / "1.0").mkdir()
    (files / "1.0/web.tar.gz").write_bytes(data)
    (files / "latest").symlink_to("1.0")
    async with artifacts.deliver(spec((files / "latest/web.tar.gz").as_uri(), data), "web") as delivery:
        await delivery.published()


async def test_nothing_outside_the_allowed_directories_is_read(
    artifacts: Artifacts, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "files-too").mkdir()
    (tmp_path / "files-too/secret").write_text("x")
    (files / "link").symlink_to(tmp_path / "secret")
    (files / "up").symlink_to("..")
    for path in ("secret", "files-too/secret", "files/link", "files/up/secret", "files/../secret"):
        failure = await fail(artifacts, f"file://{tmp_path}/{path}")
        assert isinstance(failure, OperatorNeeded), path
        assert failure.reason == "FileNotAllowed"
        assert "--file-root" in str(failure)


async def test_without_allowed_directories_nothing_is_read(store: Store, files: Path) -> None:
    (files / "web").write_text("x")
    async with Artifacts(store) as artifacts:
        assert (await fail(artifacts, (files / "web").as_uri())).reason == "FileNotAllowed"


async def test_what_is_not_a_regular_file_is_refused_at_once(artifacts: Artifacts, files: Path) -> None:
    os.mkfifo(files / "fifo")
    (files / "directory").mkdir()
    for name in ("fifo", "directory"):
        failure = await fail(artifacts, (files / name).as_uri())
        assert (failure.reason, isinstance(failure, Permanent)) == ("ArtifactRefused", True)
    assert (await fail(artifacts, "file:///dev/zero")).reason == "FileNotAllowed"


@pytest.mark.parametrize("path", ["not-there", "web/below-a-file"])
async def test_a_file_that_is_not_there_is_a_permanent_failure(
    path: str, artifacts: Artifacts, files: Path
) -> None:
    (files / "web").write_text("x")
    failure = await fail(artifacts, f"{files.as_uri()}/{path}")
    assert (failure.reason, isinstance(failure, Permanent)) == ("ArtifactNotFound", True)


@pytest.mark.parametrize("url", ["file://elsewhere/web", "file:///web?x=1", "file:///web%00x", "file:web"])
async def test_a_file_url_that_is_none_is_a_permanent_failure(url: str, artifacts: Artifacts) -> None:
    assert isinstance(await fail(artifacts, url), Permanent)


async def test_no_descriptors_are_left(artifacts: Artifacts, files: Path) -> None:
    (files / "web").write_text("x")
    await fail(artifacts, (files / "nothing").as_uri())
    before = len(os.listdir("/proc/self/fd"))
    for name in ("web", "nothing", "../secret"):
        async with artifacts.deliver(spec(f"{files.as_uri()}/{name}", b"other"), "web") as delivery:
            with pytest.raises(Failure):
                await delivery.published()
    assert len(os.listdir("/proc/self/fd")) == before
