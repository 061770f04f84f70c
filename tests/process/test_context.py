from __future__ import annotations

import json
import os
import pwd
import sys
from pathlib import Path

import pytest

from agent.domain.errors import FailureKind, OperatorNeeded
from agent.process.context import ChildContext
from agent.process.users import User, find_user
from tests.kit.keepers import Agent

ME = pwd.getpwuid(os.geteuid()).pw_name
ROOT = pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs the rights of root")


def context(directory: Path, user: User | None = None) -> ChildContext:
    return ChildContext("web", directory, {"PATH": os.defpath}, user or User(ME))


def test_the_agents_own_user_needs_no_leave() -> None:
    assert find_user("", ()) == find_user(ME, ()) == User(ME)


@pytest.mark.root
@ROOT
def test_another_user_must_be_allowed_and_exist() -> None:
    with pytest.raises(OperatorNeeded, match="--allow-user nobody") as caught:
        find_user("nobody", ("web",))
    assert caught.value.reason == "UserNotAllowed"
    with pytest.raises(OperatorNeeded) as caught:
        find_user("no-such-user", ("no-such-user",))
    assert caught.value.reason == "UserUnknown"
    entry = pwd.getpwnam("nobody")
    found = find_user("nobody", ("nobody",))
    assert (found.uid, found.gid, found.home) == (entry.pw_uid, entry.pw_gid, entry.pw_dir)
    assert entry.pw_gid in found.groups


def test_without_the_rights_of_root_no_other_user_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(OperatorNeeded, match="the agent runs as 4000000") as caught:
        find_user("root", ("root",))
    assert caught.value.reason == "UserNotPossible"


async def test_a_program_is_told_of_its_sockets_in_every_dialect(agent: Agent, tmp_path: Path) -> None:
    for sock in await agent.client.open("web", "127.0.0.1", 0, 2):
        sock.close()
    slots = [("web", 1, "http"), ("web", 0, "a:b")]
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    record = await context(tmp_path).spawn(
        agent.client, "x", [sys.executable, "-I", "-S", "-c", code], slots=slots, note="mine"
    )
    await agent.client.wait("x")
    found = json.loads((await agent.client.tail("x"))[0])
    assert found["LISTEN_FDS"] == "2"
    assert found["LISTEN_PID"] == str(record.pid)
    assert found["LISTEN_FDNAMES"] == "http:a_b"
    assert (found["EINHORN_FD_COUNT"], found["EINHORN_FD_0"], found["EINHORN_FD_1"]) == ("2", "3", "4")
    assert record.note == "mine"


async def test_why_a_program_does_not_start_is_said_with_its_remedy(agent: Agent, tmp_path: Path) -> None:
    def program(name: str, text: str, mode: int = 0o755) -> str:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
        return f"./{name}"

    permanent, operator = FailureKind.PERMANENT, FailureKind.OPERATOR
    here = context(tmp_path)
    for who, argv, kind, reason, text in [
        (here, "bin/web", permanent, "CommandNotFound", "bin/web: there is no such program (compare with"),
        (here, program("a", "#!/bin/sh", 0o644), permanent, "CommandNotExecutable", "set its executable bit"),
        (here, program("b", "#!/no/python -u\n"), permanent, "InterpreterMissing", "but /no/python is not"),
        (here, program("c", "\x7fELF?"), permanent, "WrongFormat", f"this machine ({os.uname().machine})"),
        (context(tmp_path / "gone"), "true", operator, "DirectoryUnusable", "cannot enter"),
        (here, "true\0", permanent, "StartFailed", "exec: embedded null byte"),
    ]:  # fmt: skip
        with pytest.raises(Exception) as caught:
            await who.spawn(agent.client, "x", [argv])
        info = caught.value.info  # type: ignore[attr-defined]
        assert (info.kind, info.reason) == (kind, reason), argv
        assert text in str(info)
