"""Several configuration files of one program, each with its check and its own way to tell of a change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.kit.box import Box

# Writes down each signal it gets.
PROGRAM = """
import signal, sys, time
def told(number, frame):
    with open(sys.argv[1], "a") as out:
        out.write(signal.Signals(number).name + chr(10))
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
    signal.signal(number, told)
while True:
    time.sleep(1)
"""
FILES = {
    "etc/one.conf": {"signal": "USR1"},
    "etc/two.conf": {"command": ["sh", "-c", "echo command $(cat etc/two.conf) >> told"]},
    "etc/three.conf": "reload",
    "etc/four.conf": "restart",
    "etc/five.conf": "none",
}


def state(box: Box, told: Path, **changed: str) -> dict[str, Any]:
    texts = {target: changed.get(target.split("/")[1].split(".")[0], "good") for target in FILES}
    files = []
    for target, way in FILES.items():
        if isinstance(way, dict) and "command" in way:
            way = {"command": [word.replace("told", str(told)) for word in way["command"]]}
        check = ["grep", "-q", "good", "{{ target }}"]
        files.append({"content": f"{texts[target]}\n", "target": target, "on_change": way, "check": check})
    app = {
        "version": "1",
        "files": files,
        "run": {"command": [sys.executable, "-S", "-c", PROGRAM, str(told)], "reload": {"signal": "USR2"}},
        "health": {"alive": "300ms", "probation": "0"},
    }
    return {"schema": 1, "apps": {"app": app}}


async def test_each_file_is_checked_and_told_of_in_its_own_way(box: Box) -> None:
    told = box.directory / "told"
    told.touch()
    await box.commit(state(box, told))
    await box.start()
    pid = (await box.app_is("app", state="running"))["child"]["pid"]

    async def push(**changed: str) -> None:
        status, answer = await box.webhook(await box.commit(state(box, told, **changed)), wait=True)
        assert status in (200, 409), answer

    config = box.data / "apps/app/current/config/etc"
    for changed, expected in [
        ({"one": "good 1"}, ["SIGUSR1"]),
        ({"one": "good 1", "two": "good 2"}, ["command good 2"]),
        ({"one": "good 1", "two": "good 2", "three": "good 3"}, ["SIGUSR2"]),
        ({"one": "good 1", "two": "good 2", "three": "good 3", "five": "good 5"}, []),
        ({"one": "good", "two": "good", "three": "good"}, ["SIGUSR1", "SIGUSR2", "command good"]),
    ]:
        told.write_text("")
        await push(**changed)

        async def heard(expected: list[str] = expected) -> bool:
            return sorted(told.read_text().splitlines()) == expected

        await box.until(heard)
        assert (await box.app("app"))["child"]["pid"] == pid
    told.write_text("")
    await push(three="bad", one="good 7")  # the check of one of them fails: none is used
    assert (await box.app("app"))["last_failure"]["reason"] == "CheckFailed"
    assert (config / "one.conf").read_text() == "good\n"
    assert told.read_text() == ""
    await push(one="good 8", four="good 8")  # one of those that changed asks for a restart
    app = await box.app_is("app", state="running", last_failure__reason="CheckFailed")
    assert app["child"]["pid"] != pid
    assert (config / "one.conf").read_text() == "good 8\n"
