from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from agent.keeper.client import SpawnFailed
from agent.keeper.connection import Refused
from agent.keeper.protocol import ChildRequest
from tests.kit.keepers import Agent, KeeperProcess, offspring, python, request, said, until

LOOK = """
import json, os, resource, signal
print(json.dumps({
    "environment": dict(os.environ), "directory": os.getcwd(), "ids": [os.getresuid(), os.getresgid()],
    "groups": os.getgroups(), "descriptors": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:-1],
    "stdin": os.readlink("/proc/self/fd/0"), "same": os.path.samestat(os.fstat(1), os.fstat(2)),
    "leader": os.getpid() == os.getsid(0) == os.getpgrp(), "umask": os.umask(0),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "signals": [line.split()[1] for line in open("/proc/self/status") if line[:6] in ("SigBlk", "SigIgn")],
}))
"""
IGNORE_TERM = (
    "import os, signal; signal.signal(15, lambda *_: os.write(1, b'no\\n')); os.write(1, b'ready\\n')\n"
    "while True: signal.pause()"
)
SLEEP = "import signal; print('ready'); signal.pause()"


async def look(agent: Agent, wanted: ChildRequest) -> dict[str, object]:
    await agent.client.spawn(wanted)
    record = await agent.client.wait(wanted.child)
    lines = await agent.client.tail(wanted.child)
    assert record.code == 0, lines
    found: dict[str, object] = json.loads(lines[-1])
    return found


async def test_a_child_gets_what_was_ordered_and_nothing_else(agent: Agent, tmp_path: Path) -> None:
    found = await look(
        agent, python("x", LOOK, directory=str(tmp_path), environment={"A": "ü\udcff"}, umask=0o27)
    )
    assert found["environment"] == {"A": "ü\udcff", "LC_CTYPE": "C.UTF-8"}  # the latter is Python's own doing
    assert found["directory"] == str(tmp_path)
    assert found["descriptors"] == [0, 1, 2]
    assert found["stdin"] == "/dev/null"
    assert found["same"]
    assert found["leader"]
    assert found["umask"] == 0o27
    assert found["core"] == 0
    blocked, ignored = (int(mask, 16) for mask in found["signals"])  # type: ignore[attr-defined]
    assert blocked == 0
    python_ignores = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    libcs_own = 1 << (32 - 1) | 1 << (33 - 1)  # inherited from whoever runs the tests; nobody can set them
    assert ignored & ~(python_ignores | libcs_own) == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs the rights of root")
async def test_a_child_runs_as_the_user_it_is_given(agent: Agent) -> None:
    who = {"uid": 65534, "gid": 65533, "groups": [65532]}
    await agent.client.spawn(request("x", ["cat", "/proc/self/status"], **who))
    await agent.client.wait("x")
    status = dict(line.split(":\t", 1) for line in await agent.client.tail("x"))
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65533"] * 4
    assert status["Groups"].split() == ["65532"]
    # The signal of the keeper's death is cleared by setuid(2), so it must be asked for afterwards.
    await agent.client.spawn(request("y", ["sleep", "60"], **who))
    pid = agent.client.children["y"].pid
    os.kill(agent.client.keeper_pid, signal.SIGKILL)
    await until(lambda: not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs the rights of root")
async def test_the_directory_is_entered_with_the_users_rights(agent: Agent, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(SpawnFailed) as caught:
        await agent.client.spawn(request("x", ["true"], directory=str(tmp_path), uid=65534, gid=65534))
    assert (caught.value.stage, caught.value.errno) == ("chdir", errno.EACCES)


async def test_each_way_a_start_can_fail_is_told_apart(agent: Agent, tmp_path: Path) -> None:
    def program(name: str, text: str, mode: int = 0o755) -> str:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
        return str(tmp_path / name)

    cases: list[tuple[list[str], dict[str, Any], str, int]] = [
        (["no-such-program"], {}, "exec", errno.ENOENT),
        (["bin/web"], {"directory": str(tmp_path)}, "exec", errno.ENOENT),
        ([program("plain", "#!/bin/sh\n", 0o644)], {}, "exec", errno.EACCES),
        (["plain"], {"environment": {"PATH": f"/nowhere:{tmp_path}:/bin"}}, "exec", errno.EACCES),
        ([str(tmp_path)], {}, "exec", errno.EACCES),
        ([program("bad", "#!/no/such/python\n")], {}, "interpreter", errno.ENOENT),
        (["bad"], {"environment": {"PATH": f"/bin:{tmp_path}"}}, "interpreter", errno.ENOENT),
        ([program("odd", "\x7fELF but not really")], {}, "exec", errno.ENOEXEC),
        (["true"], {"directory": str(tmp_path / "gone")}, "chdir", errno.ENOENT),
        (["tr\0ue"], {}, "exec", errno.EINVAL),
        (["true"], {"slots": [("none", 0, "http")]}, "", errno.EINVAL),
        ([], {}, "exec", errno.EINVAL),
    ]
    for argv, more, stage, code in cases:
        with pytest.raises(SpawnFailed) as caught:
            await agent.client.spawn(request("x", argv, **more))
        assert (caught.value.stage, caught.value.errno) == (stage, code), (argv, str(caught.value))
    assert agent.client.children == {}


async def test_a_relative_program_is_found_in_the_childs_directory_and_path(
    agent: Agent, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/web").symlink_to("/bin/true")
    await agent.client.spawn(request("a", ["bin/web"], directory=str(tmp_path)))
    await agent.client.spawn(request("b", ["web"], environment={"PATH": f"{tmp_path}/bin"}))
    assert (await agent.client.wait("a")).code == (await agent.client.wait("b")).code == 0


async def test_an_end_is_told_with_its_code_or_signal_to_all_who_wait(agent: Agent) -> None:
    await agent.client.spawn(python("code", "raise SystemExit(75)"))
    await agent.client.spawn(python("signal", SLEEP, note="mine"))
    waiting = [asyncio.ensure_future(agent.client.wait("signal")) for _ in range(3)]
    assert (await agent.client.wait("code")).code == 75
    assert agent.client.children["signal"].running
    assert await agent.client.signal("signal", signal.SIGKILL)
    for record in await asyncio.gather(*waiting):
        assert (record.code, record.signal, record.note, record.running) == (None, 9, "mine", False)
        assert abs(record.started - time.time()) < 60
    assert not await agent.client.signal("signal", signal.SIGTERM)
    with pytest.raises(LookupError):
        await agent.client.wait("nobody")


async def test_one_name_is_one_child_until_it_is_forgotten(agent: Agent) -> None:
    await agent.client.spawn(python("x", SLEEP))
    with pytest.raises(SpawnFailed) as caught:
        await agent.client.spawn(request("x", ["true"]))
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(OSError, match="still runs"):
        await agent.client.forget("x")
    await agent.client.signal("x", signal.SIGTERM)
    assert (await agent.client.wait("x")).signal == signal.SIGTERM
    await agent.client.forget("x")
    await agent.client.forget("x")
    await agent.client.spawn(request("x", ["true"]))
    assert (await agent.client.wait("x")).code == 0


async def test_whoever_waits_for_a_child_that_is_forgotten_is_told(agent: Agent) -> None:
    await agent.client.spawn(request("x", ["true"]))
    await agent.client.wait("x")
    await agent.client.forget("x")
    with pytest.raises(LookupError):
        await agent.client.wait("x")


async def test_a_group_can_be_ended_after_its_leader(agent: Agent) -> None:
    code = f"import os, sys\nif os.fork():\n sys.stdin.read(); os._exit(0)\n{IGNORE_TERM}"
    await agent.client.spawn(python("x", code))
    await agent.client.wait("x")
    await said(agent.client, "x", "ready")
    assert not await agent.client.signal("x", 0, group=False)
    assert await agent.client.signal("x", signal.SIGTERM)
    await said(agent.client, "x", "no")
    assert await agent.client.signal("x", signal.SIGKILL)
    async with asyncio.timeout(20):
        while await agent.client.signal("x", 0):
            await asyncio.sleep(0.005)


async def test_orphans_are_reaped(kept: KeeperProcess, agent: Agent) -> None:
    code = "import os\nfor _ in range(20):\n if os.fork() == 0:\n  os.fork()\n  os._exit(0)"
    await agent.client.spawn(python("x", code))
    await agent.client.wait("x")
    await until(lambda: offspring(kept.pid) == [str(agent.pid)])


async def test_two_hundred_spawns_leave_no_zombie_and_no_descriptor(
    kept: KeeperProcess, agent: Agent
) -> None:
    def descriptors() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{kept.pid}/fd")), len(os.listdir("/proc/self/fd"))

    async def one(name: str) -> None:
        await agent.client.spawn(request(name, ["true"]))
        assert (await agent.client.wait(name)).code == 0
        await agent.client.forget(name)

    await one("first")
    before = descriptors()
    start = time.perf_counter()
    for batch in range(10):
        await asyncio.gather(*(one(f"{batch}-{n}") for n in range(20)))
    seconds = time.perf_counter() - start
    assert descriptors() == before
    assert offspring(kept.pid) == [str(agent.pid)]
    print(f"200 children started, ended, forgotten: {seconds * 5:.2f} ms each")


async def test_a_cancelled_spawn_leaves_no_child(kept: KeeperProcess, agent: Agent) -> None:
    for turns in range(12):
        task = asyncio.ensure_future(agent.client.spawn(python(f"x{turns}", SLEEP)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns > 6:
            await asyncio.wait([task], timeout=0.001 * (turns - 6))
        cancelled = task.cancel()
        await asyncio.wait([task])
        if not cancelled:
            await agent.client.signal(f"x{turns}", signal.SIGKILL)
            await agent.client.wait(f"x{turns}")
            await agent.client.forget(f"x{turns}")
    await until(lambda: offspring(kept.pid) == [str(agent.pid)])
    assert agent.client.children == {}
    before = len(os.listdir(f"/proc/{kept.pid}/fd"))
    await agent.client.spawn(request("last", ["true"]))
    await agent.client.wait("last")
    await agent.client.forget("last")
    assert len(os.listdir(f"/proc/{kept.pid}/fd")) <= before


async def test_a_request_without_sense_is_answered_with_an_error(kept: KeeperProcess, agent: Agent) -> None:
    ask = agent.client._connection.ask
    requests: list[tuple[str, dict[str, Any]]] = [
        ("dance", {}),
        ("spawn", {}),
        ("spawn", {"child": {"child": 3}}),
        ("spawn", {"child": [1]}),
        ("signal", {"child": "x", "signal": 9, "group": True}),
        ("open", {"key": "k", "address": 5, "port": 1, "count": 1, "backlog": 1}),
        ("open", {"key": "k", "address": "127.0.0.1", "port": 1 << 40, "count": 1, "backlog": 1}),
        ("open", {"key": "k", "address": "127.0.0.1", "port": 0, "count": 1000, "backlog": 1}),
        ("note", {"key": 5, "value": "x"}),
        ("note", {"key": "k", "value": "x" * 600_000}),
        ("stopping", {"deadline": "soon"}),
    ]
    for verb, arguments in requests:
        with pytest.raises(Refused):
            await ask(verb, arguments)
    await agent.client.note("k", "still there")
    assert "defect" not in kept.output
