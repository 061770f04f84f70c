"""Programs that say something of themselves: ready, reloading, stopping, alive, and who they are."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box
from tests.kit.operator import Operator

PROGRAM = """
import os, signal, socket, sys, time
world, modes = sys.argv[1], sys.argv[2].split(",")
def say(*words):
    where = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(chr(10).join(words).encode(), chr(0) + where[1:] if where[0] == "@" else where)
def wait(name):
    while not os.path.exists(os.path.join(world, name)):
        time.sleep(0.01)
def tell(name):
    open(os.path.join(world, name), "a").write(str(os.getpid()) + chr(10))
def hup(*_):
    say("RELOADING=1", "STATUS=reads its files")
    wait("read")
    say("READY=1", "STATUS=has read them")
def term(*_):
    say("STOPPING=1", "EXTEND_TIMEOUT_USEC=30000000")
    time.sleep(1)
    tell("ended")
    os._exit(0)
signal.signal(signal.SIGHUP, hup)
if "slowly" in modes:
    signal.signal(signal.SIGTERM, term)
if "forks" in modes and os.fork():
    wait("named")
    os._exit(0)
if "forks" in modes:
    os.setsid()
    say("MAINPID=%d" % os.getpid(), "READY=1")
    tell("named")
if "extends" in modes:
    say("EXTEND_TIMEOUT_USEC=30000000", "STATUS=migrates")
    time.sleep(1)
if "waits" in modes:
    say("STATUS=loads 3 of 7")
    wait("go")
if "announces" in modes:
    os.write(int(os.environ["NOTIFY_FD"]), b"ready" + bytes([10]))
else:
    say("READY=1", "STATUS=serves")
tell("ready")
while True:
    if "beats" in modes:
        say("WATCHDOG=1")
        if os.path.exists(os.path.join(world, "hang")):
            os.unlink(os.path.join(world, "hang"))
            modes = []
    time.sleep(0.05)
"""


def parts(box: Box, modes: str, health: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An app that is such a program; its word goes to and fro in files of the box's directory."""
    run = {"command": [sys.executable, "-S", "-c", PROGRAM, str(box.directory), modes], **more.pop("run", {})}
    probe = {"notify": "systemd", "deadline": "20s", "probation": "100ms", **(health or {})}
    return {"artifact": None, "listen": None, "socket": None, "health": probe, "run": run, **more}


async def until_there(box: Box, name: str) -> None:
    async def there() -> bool:
        return (box.directory / name).exists()

    await box.until(there)


async def status_is(box: Box, text: str) -> dict[str, Any]:
    """Until what serves, or starts, says this; its row."""

    async def said() -> dict[str, Any] | None:
        rows = ((await box.app()).get("child") or {}).get("instances", [])
        return next((row for row in rows if row["status"] == text), None)

    row: dict[str, Any] = await box.until(said)
    return row


async def test_a_program_serves_once_it_says_so_and_only_its_own_word_counts(box: Box) -> None:
    await box.deploy("1.0", **parts(box, "waits"))
    await box.start()
    row = await status_is(box, "loads 3 of 7")
    environ = Path(f"/proc/{row['pid']}/environ").read_bytes().split(b"\0")
    (where,) = [line.partition(b"=")[2].decode() for line in environ if line.startswith(b"NOTIFY_SOCKET=")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        address = "\0" + where[1:] if where.startswith("@") else where
        stranger.sendto(b"READY=1\nSTATUS=lies", address)
        stranger.sendto(b"\xff" * 5000, address)
    with pytest.raises(FileNotFoundError):
        (box.directory / "ready").stat()
    assert (await box.app())["state"] == "updating"
    (box.directory / "go").touch()
    await box.proven("1.0")
    await status_is(box, "serves")
    assert "serves" in (await Operator(box)("status")).out
    assert "lies" not in "\n".join(box.output)


async def test_a_slow_start_may_ask_for_time(box: Box) -> None:
    await box.deploy("1.0", **parts(box, "extends", {"deadline": "500ms"}))
    await box.start()
    await box.proven("1.0")


async def test_who_never_says_so_is_not_healthy(box: Box) -> None:
    await box.deploy("1.0", **parts(box, "waits", {"deadline": "300ms"}))
    await box.start()
    app = await box.app_is(run=None, last_failure__reason="ProbeFailed")
    assert "has not said that it is ready" in app["last_failure"]["message"]


async def test_a_newline_on_a_descriptor_says_it_too(box: Box) -> None:
    await box.deploy("1.0", **parts(box, "announces", {"notify": "fd"}))
    await box.start()
    await box.proven("1.0")


async def test_who_falls_silent_is_ended_and_started_again(box: Box) -> None:
    run = {"watchdog": "2s", "restart": {"backoff": "50ms"}}
    await box.deploy("1.0", **parts(box, "beats", run=run))
    await box.start()
    pid = (await box.proven("1.0"))["child"]["pid"]
    (box.directory / "hang").touch()
    app = await box.app_is(last_failure__reason="WatchdogSilent")
    assert app["child"]["last_exit"]["signal"] == signal.SIGABRT

    async def again() -> bool:
        child = (await box.app())["child"]
        return child["pid"] not in (0, pid) and child["restarts"] == 1

    await box.until(again)
    assert not list(box.data.rglob("core*")), "no core dump"


async def test_a_reload_is_over_when_the_program_says_so(box: Box) -> None:
    file = {"target": "conf", "content": "one", "on_change": "reload"}
    await box.deploy("1.0", **parts(box, "", files=[file]))
    await box.start()
    pid = (await box.proven("1.0"))["child"]["pid"]
    await box.deploy("1.0", push=True, **parts(box, "", files=[{**file, "content": "two"}]))
    await status_is(box, "reads its files")
    assert (await box.app())["state"] == "updating"
    (box.directory / "read").touch()
    app = await box.app_is(state="running", run=None, last_run__result="succeeded")
    await status_is(box, "has read them")
    assert app["child"]["pid"] == pid
    assert [step["name"] for step in (await box.history())[0]["steps"]][-3:] == ["reload", "probe", "record"]


async def test_who_goes_on_in_the_background_is_who_it_says(box: Box) -> None:
    await box.deploy("1.0", **parts(box, "forks"))
    await box.start()
    await box.proven("1.0")
    await until_there(box, "ready")
    daemon = int((box.directory / "ready").read_text())
    rows = [row for row in (await Operator(box)("ps", "--json")).json["processes"] if row["app"] == "web"]

    async def followed() -> bool:
        nonlocal rows
        rows = [row for row in (await Operator(box)("ps", "--json")).json["processes"] if row["app"] == "web"]
        return [row["pid"] for row in rows] == [daemon]

    await box.until(followed)
    assert (await box.app())["child"]["restarts"] == 0
    assert await box.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(daemon, 0)


async def test_a_stop_may_ask_for_time(box: Box) -> None:
    run = {"stop": {"grace": "200ms"}}
    await box.deploy("1.0", **parts(box, "slowly", run=run))
    await box.start()
    await box.proven("1.0")
    await box.deploy("2.0", push=True, **parts(box, "", run=run, env={"NEW": "1"}))
    await box.proven("2.0")
    assert (box.directory / "ended").exists(), "it was not killed"
