"""Apps of files only: placed outside by links, told of by a command, taken away again; the whole agent."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.archives import Tar
from tests.kit.box import Box
from tests.kit.operator import Operator


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    root = tmp_path / "srv"
    root.mkdir()
    async with Box(tmp_path / "box", settings={"--place-root": str(root)}) as box:
        yield box


def srv(box: Box) -> Path:
    return box.directory.parent / "srv"


def docs(box: Box, version: str, **parts: Any) -> dict[str, Any]:
    """The state with one app `docs`, an archive with an index of this version."""
    data = Tar().file("index.html", version.encode()).file("css/site.css", b"body {}").end()
    path = box.artifacts / f"docs-{version}.tar"
    path.write_bytes(data)
    app = {
        "version": version,
        "artifact": {"url": path.as_uri(), "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}"},
        "place": str(srv(box) / "www/docs"),
        **parts,
    }
    return {"schema": 1, "apps": {"docs": app}}


async def push(box: Box, state: dict[str, Any]) -> None:
    commit = await box.commit(state)
    status, answer = await box.webhook(commit, wait=True)
    assert status in (200, 202, 409), answer  # 409: it did not succeed


async def placed(box: Box, version: str) -> dict[str, Any]:
    return await box.app_is("docs", state="placed", current__version=version, good__version=version)


async def test_an_archive_is_placed_by_a_link_and_the_next_one_by_one_rename(box: Box) -> None:
    place, told = srv(box) / "www/docs", box.directory / "told"
    after = ["sh", "-c", f"cat index.html >> {told}"]
    await box.commit(docs(box, "1.0", after=after))
    await box.start()
    await placed(box, "1.0")
    assert (place / "index.html").read_text() == "1.0"
    text, inode = os.readlink(place), place.lstat().st_ino
    await push(box, docs(box, "2.0", after=after))
    await placed(box, "2.0")
    assert (place / "index.html").read_text() == "2.0"
    assert (os.readlink(place), place.lstat().st_ino) == (text, inode)  # only `current` was renamed
    assert told.read_text() == "1.02.0"
    async with box._session.get(box.url("/readyz")) as answer:
        assert answer.status == 200
    plan = (await box.history())[0]
    assert [step["name"] for step in plan["steps"]][-3:] == ["place", "after", "record"]


async def test_files_of_one_app_go_to_several_places_rendered_and_checked(box: Box) -> None:
    state = docs(
        box,
        "1.0",
        files=[
            {
                "content": "root {{ version }};",
                "target": "etc/site.conf",
                "check": ["grep", "-q", "root", "{{ target }}"],
            }
        ],
        place={
            str(srv(box) / "docs"): ".",
            str(srv(box) / "nginx/conf.d/docs.conf"): "etc/site.conf",
        },
    )
    await box.commit(state)
    await box.start()
    await placed(box, "1.0")
    conf = srv(box) / "nginx/conf.d/docs.conf"
    assert conf.read_text() == "root 1.0;"
    assert conf.stat().st_mode & 0o777 == 0o644
    assert (srv(box) / "docs/index.html").read_text() == "1.0"
    state["apps"]["docs"]["files"][0]["content"] = "nothing"
    await push(box, state)
    app = await box.app_is("docs", state="degraded")
    assert conf.read_text() == "root 1.0;"
    assert app["last_failure"]["reason"] == "CheckFailed", app
    state["apps"]["docs"] |= {"place": str(srv(box) / "docs"), "version": "1.1"}
    state["apps"]["docs"]["files"][0]["content"] = "root again;"
    await push(box, state)
    await placed(box, "1.1")
    assert not conf.is_symlink()  # a place that is not wanted any more
    assert (srv(box) / "docs/etc/site.conf").read_text() == "root again;"


async def test_a_failing_after_brings_the_old_files_back(box: Box) -> None:
    place = srv(box) / "www/docs/index.html"
    await box.commit(docs(box, "1.0"))
    await box.start()
    await placed(box, "1.0")
    await push(box, docs(box, "2.0", after=["false"]))
    app = await box.app_is("docs", state="degraded", current__version="1.0")
    assert place.read_text() == "1.0"
    assert app["last_failure"]["reason"] == "AfterFailed"
    await push(box, docs(box, "2.1"))
    await placed(box, "2.1")
    assert place.read_text() == "2.1"


@pytest.mark.parametrize(
    "how", ["outside", "through a link", "taken by a file", "taken by a link", "own data"]
)
async def test_a_place_that_is_not_the_apps_to_take_is_refused_and_untouched(box: Box, how: str) -> None:
    outside = box.directory / "outside"
    outside.mkdir()
    (srv(box) / "link").symlink_to(outside)
    (srv(box) / "file").write_text("mine")
    (srv(box) / "theirs").symlink_to("/etc/hostname")
    place, reason = {
        "outside": (outside / "docs", "PlaceNotAllowed"),
        "through a link": (srv(box) / "link/docs", "PlaceThroughLink"),
        "taken by a file": (srv(box) / "file", "PlaceTaken"),
        "taken by a link": (srv(box) / "theirs", "PlaceTaken"),
        "own data": (box.data / "apps/docs/current", "PlaceNotAllowed"),
    }[how]
    if how == "own data":
        box.settings["--place-root"] = str(box.directory)
    await box.commit(docs(box, "1.0", place=str(place)))
    await box.start()
    app = await box.app_is("docs", last_failure__reason=reason)
    assert str(place) in str(app["last_failure"])
    assert not os.listdir(outside)
    assert (srv(box) / "file").read_text() == "mine"
    assert os.readlink(srv(box) / "theirs") == "/etc/hostname"


async def test_an_app_that_is_gone_takes_its_places_with_it(box: Box) -> None:
    state = docs(box, "1.0", hooks={"cleanup": ["sh", "-c", f"echo bye > {box.directory}/bye"]})
    other = docs(box, "1.0", place=str(srv(box) / "other"))["apps"]["docs"]
    await box.commit({"schema": 1, "apps": {**state["apps"], "other": other}})
    await box.start()
    await placed(box, "1.0")
    await push(box, {"schema": 1, "apps": {"other": other}})

    async def gone() -> bool:
        return not (srv(box) / "www/docs").is_symlink()

    await box.until(gone)
    assert (srv(box) / "other/index.html").read_text() == "1.0"
    assert (box.directory / "bye").read_text() == "bye\n"


async def test_after_kill_9_old_or_new_is_placed_whole_and_the_placing_is_ended(box: Box) -> None:
    place, gate = srv(box) / "www/docs/index.html", box.directory / "gate"
    os.mkfifo(gate)
    await box.commit(docs(box, "1.0"))
    await box.start()
    await placed(box, "1.0")
    told = box.directory / "told"
    after = [
        "sh",
        "-c",
        f"echo begun >> {told}; [ -e {told}.second ] || {{ touch {told}.second; cat {gate}; }}",
    ]
    commit = await box.commit(docs(box, "2.0", after=after))
    await box.webhook(commit)

    async def begun() -> bool:
        return told.exists()

    await box.until(begun)
    os.kill(await box.agent_pid(), signal.SIGKILL)  # in the middle of `after`: the new files are there
    await placed(box, "2.0")
    assert place.read_text() == "2.0"
    assert told.read_text() == "begun\nbegun\n"  # it was not taken for done


async def test_an_app_may_get_a_program_and_lose_it_again(box: Box) -> None:
    await box.commit(docs(box, "1.0"))
    await box.start()
    await placed(box, "1.0")
    web = box.state("2.0")["apps"]["web"]
    await push(box, {"schema": 1, "apps": {"docs": web}})
    await box.app_is("docs", state="running", current__version="2.0")
    await box.serving("2.0")
    assert not (srv(box) / "www/docs").is_symlink()
    await push(box, docs(box, "3.0"))
    await placed(box, "3.0")
    assert (srv(box) / "www/docs/index.html").read_text() == "3.0"
    assert (await box.get())[0] == 0


async def test_an_operator_plans_goes_back_and_forth(box: Box) -> None:
    operator, place = Operator(box), srv(box) / "www/docs/index.html"
    await box.commit(docs(box, "1.0"))
    await box.start()
    await placed(box, "1.0")
    await box.commit(docs(box, "2.0", after=["true"]))
    told = await operator("plan")
    assert (told.code, "after" in told.out) == (0, True), told
    await operator("sync")
    await placed(box, "2.0")
    assert (await operator("rollback", "docs")).code == 0
    await box.app_is("docs", current__version="1.0")
    assert place.read_text() == "1.0"
    assert (await operator("retry", "docs")).code == 0
    await placed(box, "2.0")
    assert place.read_text() == "2.0"


async def test_a_place_somebody_took_is_put_right_and_a_file_in_its_way_is_left(box: Box) -> None:
    place, told = srv(box) / "www/docs", box.directory / "told"
    after = ["sh", "-c", f"cat index.html >> {told}"]
    await box.commit(docs(box, "1.0", drift={"every": "100ms"}, after=after))
    await box.start()
    await placed(box, "1.0")
    text = os.readlink(place)
    place.unlink()

    async def back() -> bool:
        return place.is_symlink() and os.readlink(place) == text

    await box.until(back)

    async def told_again() -> bool:
        return told.read_text() == "1.01.0"

    await box.until(told_again)
    place.unlink()
    place.symlink_to("/etc")  # a place of ours, led elsewhere
    await box.until(back)
    place.unlink()
    place.write_text("mine")
    await box.app_is("docs", last_failure__reason="PlaceTaken")
    assert place.read_text() == "mine"
