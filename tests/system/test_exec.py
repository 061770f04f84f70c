"""`emptybox exec`: commands that people run in an app, by the real command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.keeper.confine import landlock
from agent.process.users import DYNAMIC_IDS
from tests.kit import containers, sandbox
from tests.kit.box import Box
from tests.kit.image import ROOT
from tests.kit.operator import Operator
from tests.kit.terminal import on_terminal

HEALTH: dict[str, Any] = {"http": "/healthz", "interval": "100ms", "deadline": "20s", "probation": "200ms"}
PYTHON = os.path.realpath(sys.executable)


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    tmp_path.chmod(0o755)
    async with Box(tmp_path, settings={"--allow-exec": "web"}) as box:
        yield box


@pytest.fixture
def operator(box: Box) -> Operator:
    return Operator(box)


async def proven(box: Box, **parts: Any) -> dict[str, Any]:
    await box.deploy("1.0", health=HEALTH, **parts)
    await box.start()
    return await box.proven("1.0")


@asynccontextmanager
async def begun(
    box: Box, *words: str, given: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`emptybox exec` with these words, under way; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "agent", "exec", *words,
        stdin=given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "EMPTYBOX_DATA": str(box.data)},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(30.0):
        return (await process.stdout.readline()).decode().strip()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


SHOW = """
import os, sys, json
print(json.dumps({"cwd": os.getcwd(), "env": dict(os.environ), "uid": os.getuid()}))
print("beside", file=sys.stderr)
sys.exit(7)
"""


async def test_a_command_is_one_of_the_apps_and_its_output_and_end_are_passed_on(
    box: Box, operator: Operator
) -> None:
    app = await proven(box, env={"COLOUR": "blue"}, dirs={"state": "data"})
    await shows_what_it_is(box, operator, app)
    await says_it_as_it_comes_and_ends_with_its_client(box, operator)
    await leaves_nothing_behind(box, operator)
    await reads_what_it_is_given(box)
    await has_a_terminal(box)
    await is_asked_for_by_no_app(box, operator)


async def shows_what_it_is(box: Box, operator: Operator, app: dict[str, Any]) -> None:
    told = await operator("exec", "web", "--", PYTHON, "-S", "-c", SHOW, "--secret=hush-hush")
    assert (told.code, told.err) == (7, "beside\n")
    shown = told.json
    assert shown["cwd"] == str(Path(f"/proc/{app['child']['pid']}/cwd").readlink())
    assert shown["env"]["EMPTYBOX_APP"] == "web"
    assert shown["env"]["COLOUR"] == "blue"
    assert shown["env"]["STATE_DIRECTORY"].endswith("/apps/web/dirs/state")
    assert "PYTEST_CURRENT_TEST" not in shown["env"], "nothing of the agent's own environment"
    assert (await operator("exec", "web", "sh", "-c", "kill -USR1 $$")).code == 128 + signal.SIGUSR1
    assert (await operator("exec", "web", "bin/nothing")).code == 127

    entries = (await operator("history", "web", "--json")).json["execs"]
    mine = f"uid {os.getuid()}"
    assert [(e["by"], e["program"], e["arguments"]) for e in reversed(entries)] == [
        (mine, PYTHON, 4), (mine, "sh", 2), (mine, "bin/nothing", 0),
    ]  # fmt: skip
    assert entries[2]["result"] == "ended with exit code 7"
    assert entries[0]["result"] == "CommandNotFound"
    assert f"{mine} runs sh with 2 arguments" in "\n".join(box.output)
    assert "hush-hush" not in "\n".join(box.output) + json.dumps(entries) + json.dumps(await box.status())
    assert f"sh by {mine}" in (await operator("history")).out


async def says_it_as_it_comes_and_ends_with_its_client(box: Box, operator: Operator) -> None:
    script = "sleep 1000 & echo $$ $!; wait"
    for number in (signal.SIGINT, signal.SIGKILL):
        async with begun(box, "web", "sh", "-c", script) as process:
            pids = [int(word) for word in (await line(process)).split()]
            rows = (await operator("ps", "--json")).json["processes"]
            assert os.getsid(pids[0]) in [row["pid"] for row in rows if row["state"] == "exec"]
            process.send_signal(number)

            async def ended(pids: list[int] = pids) -> bool:
                return all(map(gone, pids))

            await box.until(ended)
    assert (await operator("exec", "--timeout", "300ms", "web", "sleep", "1000")).code == 124


AWAY = """
trap '' TERM HUP
setsid sh -c 'trap "" TERM; sleep 1000 & echo $$ $! >> data/pids; wait' < /dev/null > /dev/null 2>&1 &
setsid -f sh -c 'echo $$ >> data/pids; exec sleep 1000' < /dev/null > /dev/null 2>&1
while [ "$(cat data/pids | wc -w)" -lt 3 ]; do sleep 0.02; done
cat data/pids | xargs; rm data/pids
"""


async def leaves_nothing_behind(box: Box, operator: Operator) -> None:
    """Also of what went into sessions of its own, and ignores TERM."""
    told = await operator("exec", "web", "sh", "-c", AWAY)
    assert told.code == 0, told.err
    assert [gone(int(pid)) for pid in told.out.split()] == [True] * 3
    async with begun(box, "web", "sh", "-c", f"{AWAY} wait; exec sleep 1000") as process:
        pids = [int(word) for word in (await line(process)).split()]
        assert [gone(pid) for pid in pids] == [False] * 3
        process.kill()

        async def ended() -> bool:
            return all(map(gone, pids))

        await box.until(ended)


async def has_a_terminal(box: Box) -> None:
    """The shell asks for keys, its size follows ours, and Ctrl-C is for what runs in it."""
    environment = {"EMPTYBOX_DATA": str(box.data), "TERM": "vt100"}
    async with on_terminal(["exec", "-t", "web", "--", "sh", "-i"], environment) as terminal:
        terminal.type("echo $TERM $(stty size) $(tty > /dev/tty && echo one)\n")
        await terminal.until(lambda shown: "vt100 40 100 one" in shown)
        terminal.resize(33, 77)
        terminal.type("until stty size | grep -q 33; do sleep 0.05; done; stty size\n")
        await terminal.until(lambda shown: "33 77" in shown)
        terminal.type("echo on; sleep 1000\n")
        await terminal.until(lambda shown: "\non\r\n" in shown)
        terminal.type("\x03")
        terminal.type("exit 5\n")
        assert await terminal.ended() == 5
    async with begun(box, "-t", "web", "true") as process:
        assert await process.wait() == 2


async def reads_what_it_is_given(box: Box) -> None:
    """Input reaches it whole, and output is any bytes."""
    data = bytes(range(256)) * 4096
    async with begun(box, "-i", "web", "cat", given=asyncio.subprocess.PIPE) as process:
        async with asyncio.timeout(60.0):
            out, err = await process.communicate(data)
        assert (process.returncode, err) == (0, b"")
        assert out == data
    async with begun(box, "web", "cat", given=asyncio.subprocess.PIPE) as process:
        async with asyncio.timeout(60.0):
            assert await process.stdout.read() == b"", "it reads nothing where nobody asked for it"  # type: ignore[union-attr]


async def test_the_end_of_the_agent_is_theirs_by_force_or_in_order(box: Box, operator: Operator) -> None:
    await proven(box)
    async with begun(
        box, "web", "sh", "-c", "echo $$; trap '' PIPE TERM; while :; do sleep 0.05; done"
    ) as process:
        pid = int(await line(process))
        os.kill(await box.agent_pid(), signal.SIGKILL)
        async with asyncio.timeout(60.0):
            assert await process.wait() == 3

        async def ended() -> bool:
            return gone(pid)

        await box.until(ended)
    await box.until(box.answers)
    entries = (await operator("history", "web", "--json")).json["execs"]
    assert [entry["result"] for entry in entries] == ["interrupted"]
    await box.app_is(state="running")
    async with begun(box, "web", "sh", "-c", "echo $$; exec sleep 1000") as process:
        pid = int(await line(process))
        assert (await operator("upgrade")).code == 0
        assert await asyncio.wait_for(process.wait(), 60.0) == 3
        assert gone(pid)
    await box.until(box.answers)
    await box.app_is(state="running")
    async with begun(box, "web", "sh", "-c", "echo $$; exec sleep 1000") as process:
        pid = int(await line(process))
        assert await box.stop() == 0
        assert await asyncio.wait_for(process.wait(), 60.0) == 3
        assert gone(pid)
    assert "POST /exec failed" not in "\n".join(box.output)


async def test_only_where_the_settings_allow_it(box: Box, operator: Operator) -> None:
    box.settings["--allow-exec"] = "other"
    run = {"command": ["sleep", "1000"]}
    health = {"alive": "100ms", "probation": "100ms"}
    await box.deploy("1.0", run=run, listen=None, socket=None, health=health)
    await box.start()
    await box.proven("1.0")
    told = await operator("exec", "web", "true")
    assert (told.code, "--allow-exec web" in told.err) == (4, True)
    told = await operator("exec", "nobody", "true")
    assert (told.code, "no app 'nobody'" in told.err) == (2, True)


async def is_asked_for_by_no_app(box: Box, operator: Operator) -> None:
    before = len((await operator("history", "--json")).json["execs"])
    ask = f"{sys.executable} -P -m agent exec --socket {box.data}/agent.sock web true"
    for how in (ask, f"(setsid {ask} &) ; sleep 1000 & wait"):
        inner = f"cd {ROOT}; {how}"
        async with begun(box, "web", "--", "sh", "-c", f"({inner}) 2>&1") as process:
            assert "programs of apps may not ask for this" in await line(process)
    execs = (await operator("history", "--json")).json["execs"]
    assert [e["program"] for e in execs[: len(execs) - before]] == ["sh", "sh"]


async def test_a_command_is_isolated_as_the_app_is() -> None:
    sandbox.as_root()
    if landlock.version() < 1:
        pytest.skip("needs Landlock")
    directory = Path(tempfile.mkdtemp(prefix="emptybox-exec-"))
    directory.chmod(0o755)
    try:
        async with Box(directory, settings={"--allow-exec": "*"}) as box:
            await isolated(box)
    finally:
        shutil.rmtree(directory)


APART = {"namespaces": ["pid", "net"], "private": ["tmp"]}
LOOK = "echo $$; cat /tmp/mine; ls -d /proc/[0-9]*; sed 1,2d /proc/net/dev; sleep 1000 & exec kill -USR2 $$"


@pytest.mark.parametrize("tier", ["standard", "strict"])
async def test_a_command_joins_the_namespaces_and_the_private_files_of_the_app(tier: str, box: Box) -> None:
    sandbox.as_root()
    if tier == "strict" and landlock.version() < 1:
        pytest.skip("needs Landlock")
    program = ["sh", "-c", "echo of-the-app > /tmp/mine; exec sleep 1000"]
    health = {"alive": "300ms", "probation": "100ms"}
    run = {"command": program, "isolation": {"tier": tier, **APART}}
    await box.deploy("1.0", run=run, health=health, listen=None, socket=None)
    await box.start()
    app = await box.proven("1.0")
    told = await Operator(box)("exec", "web", "--", "sh", "-c", LOOK)
    assert told.code == 128 + signal.SIGUSR2, told.err
    own, mine, *rest = told.out.splitlines()
    assert mine == "of-the-app"
    assert {"/proc/1", "/proc/2", f"/proc/{own}"} <= set(rest)
    assert len([line for line in rest if line.startswith("/proc/")]) < 6
    assert [line.split()[0] for line in rest if not line.startswith("/proc/")] == ["lo:"]
    assert len(inside(app["child"]["pid"])) == 2, "what the command began ended with it"
    for number in (signal.SIGINT, signal.SIGKILL):
        async with begun(box, "web", "sh", "-c", "sleep 1000 & echo; wait") as process:
            await line(process)
            assert len(inside(app["child"]["pid"])) == 5  # with the attendant
            process.send_signal(number)

            async def ended() -> bool:
                return len(inside(app["child"]["pid"])) == 2

            await box.until(ended)
    assert (await box.app())["child"]["pid"] == app["child"]["pid"]


def inside(pid: int) -> list[int]:
    """Who is in the PID namespace of a process, init included."""
    found, space = [], os.readlink(f"/proc/{pid}/ns/pid")
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == space:
                found.append(int(entry.name))
    return found


async def isolated(box: Box) -> None:
    run = {
        "command": ["sh", "-c", "touch $TMPDIR/mine; exec sleep 1000"],
        "user": "dynamic",
        "isolation": "strict",
    }
    health = {"alive": "300ms", "probation": "100ms"}
    await box.deploy("1.0", run=run, health=health, listen=None, socket=None)
    await box.start()
    app = await box.proven("1.0")
    box.secret_file.chmod(0o644)
    script = f"id -u; ls $TMPDIR; cat {box.secret_file} || touch /tmp/here || grep NoNew /proc/self/status"
    told = await Operator(box)("exec", "web", "--", "sh", "-c", script)
    user = Path(f"/proc/{app['child']['pid']}").stat().st_uid
    assert told.out.splitlines() == [str(user), "mine", "NoNewPrivs:\t1"], told.err
    assert user in DYNAMIC_IDS
    assert told.err.lower().count("permission denied") == 2


async def test_a_command_by_an_operator_runs_in_a_container_of_its_own(box: Box, operator: Operator) -> None:
    sandbox.as_root()
    for tool in ("runc", "busybox"):
        sandbox.tool(tool)
    name = f"exec-{secrets.token_hex(4)}"
    box.settings["--allow-exec"] = name
    program = {"driver": "oci", "command": ["sh", "-c", "echo here > data/mine; exec sleep 1000"]}
    health = {"alive": "300ms", "probation": "100ms"}
    await box.commit(
        containers.state(box, name, containers.shell(), run=program, dirs={"state": "data"}, health=health)
    )
    await box.start()
    await box.app_is(name, state="running", good__version="1.0")
    script = "cat data/mine; echo $EMPTYBOX_APP; echo apart >&2; exit 7"
    told = await operator("exec", name, "sh", "-c", script)
    assert (told.code, told.out, told.err) == (7, f"here\n{name}\n", "apart\n")
    before = containers.processes(name)
    assert (await operator("exec", "--timeout", "1s", name, "sleep", "1000")).code == 124
    assert containers.processes(name) == before
    assert await box.stop() == 0
    assert containers.left(box, name) == []
