"""Apps that need one another: what is needed serves first and ends last, and nobody else is held up."""

from __future__ import annotations

from typing import Any

from tests.kit.box import Box

PROBATION = "100ms"


def app(
    box: Box, name: str, *, needs: list[str] | None = None, waits: bool = False, **more: Any
) -> dict[str, Any]:
    """One that writes down when it starts and ends; if it `waits`, it is well once NAME-well is there."""
    book = box.directory / "book"
    program = f"trap 'echo {name} ends >> {book}; exit 0' TERM; echo {name} starts >> {book}; "
    program += "while :; do sleep 0.05; done"
    well = {"exec": ["test", "-e", str(box.directory / f"{name}-well")]} if waits else {"alive": "50ms"}
    health = {**well, "interval": "50ms", "deadline": "20s", "probation": PROBATION}
    return {"version": "1.0", "run": {"command": ["sh", "-c", program]}, "health": health, **more} | (
        {"needs": needs} if needs else {}
    )


def book(box: Box) -> list[str]:
    """What the programs wrote down."""
    path = box.directory / "book"
    return path.read_text().splitlines() if path.exists() else []


async def test_what_is_needed_serves_first_and_others_do_not_wait(box: Box) -> None:
    apps = {
        "web": app(box, "web", needs=["api", "db"]),
        "api": app(box, "api", needs=["db"]),
        "db": app(box, "db", waits=True),
        "other": app(box, "other"),
    }
    await box.commit({"schema": 1, "apps": apps})
    await box.start()
    await box.app_is("other", state="running")
    await box.app_is("web", run__phase="needs")
    await box.app_is("api", run__phase="needs")
    assert sorted(book(box)) == ["db starts", "other starts"]
    (box.directory / "db-well").touch()
    for name in apps:
        await box.app_is(name, state="running")
    assert [line for line in book(box) if "other" not in line] == ["db starts", "api starts", "web starts"]
    assert await box.stop() == 0
    ends = [line for line in book(box) if line.endswith("ends") and "other" not in line]
    assert ends == ["web ends", "api ends", "db ends"]
    (box.directory / "book").unlink()
    await box.start()
    for name in apps:
        await box.app_is(name, state="running")
    assert [line for line in book(box) if "other" not in line] == ["db starts", "api starts", "web starts"]


async def test_who_needs_one_that_does_not_work_is_tried_again_and_what_serves_goes_on(box: Box) -> None:
    web, db = app(box, "web"), app(box, "db")
    await box.commit({"schema": 1, "apps": {"web": web}})
    await box.start()
    pid = (await box.app_is("web", state="running"))["child"]["pid"]
    broken = {**db, "run": {"command": ["false"]}}
    needing = {**web, "needs": ["db"], "env": {"NEW": "1"}}
    commit = await box.commit({"schema": 1, "apps": {"web": needing, "db": broken}})
    assert (await box.webhook(commit))[0] == 202
    found = await box.app_is("web", last_failure__reason="NeedNotServing", run=None, last_run__result="later")
    assert found["child"]["pid"] == pid
    commit = await box.commit({"schema": 1, "apps": {"web": needing, "db": {**db, "version": "1.1"}}})
    assert (await box.webhook(commit))[0] == 202
    await box.app_is("db", state="running")
    after = await box.app_is("web", state="running", run=None, last_run__result="succeeded")
    assert after["child"]["pid"] != pid


async def test_a_changed_need_alone_restarts_nobody(box: Box) -> None:
    web, db = app(box, "web"), app(box, "db")
    await box.commit({"schema": 1, "apps": {"web": web, "db": db}})
    await box.start()
    pid = (await box.app_is("web", state="running"))["child"]["pid"]
    commit = await box.commit({"schema": 1, "apps": {"web": {**web, "needs": ["db"]}, "db": db}})
    assert (await box.webhook(commit))[0] == 202

    async def recorded() -> bool:
        return [step["name"] for step in (await box.history())[0]["steps"]] == ["record"]

    await box.until(recorded)
    assert (await box.app("web"))["child"]["pid"] == pid
