"""A state repository in the wrong hands: what it may not do to the host, whatever it says.

Each state is pushed to a running agent; it must be refused with a reason, and what serves must not notice.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.git_server import Content, Link

KEPT = "for the agent's eyes only"


@dataclass
class Attack:
    """What a state says, and what it is told."""

    name: str
    parts: dict[str, Any]
    words: str
    tree: dict[str, Content] = field(default_factory=dict)


def attacks(box: Box, outside: Path) -> list[Attack]:
    """Everything that is tried on a host where `outside` is a directory of the agent's."""
    up = "../" * 30
    kept = outside / "kept"
    template, nothing = {"target": "etc/x"}, f"sha256:{'0' * 64}"
    return [
        # reading what is the agent's
        Attack("template above", {"files": [{"template": f"{up}{kept}", **template}]}, "leaves the"),
        Attack("template absolute", {"files": [{"template": str(kept), **template}]}, "absolute"),
        Attack(
            "template by a link",
            {"files": [{"template": "t", **template}]},
            "could lead out",
            {"t": Link(str(kept))},
        ),
        Attack(
            "template by a relative link",
            {"files": [{"template": "a/t", **template}]},
            "could lead out",
            {"a/t": Link(f"../{up}{kept}")},
        ),
        Attack("page above", {"maintenance": {"page": f"{up}{kept}"}}, "leaves the repository"),
        Attack("template code", {"env": {"A": "{{ ''.__class__.__mro__ }}"}}, "env.A"),
        Attack("agent's variables", {"secrets": {"A": {"env": "PATH"}}}, "--secret-env"),
        Attack("secret outside", {"secrets": {"A": {"file": f"{up}{kept}"}}}, "secrets.A.file"),
        Attack("secret absolute", {"secrets": {"A": {"file": str(kept)}}}, "secrets.A.file"),
        Attack("secret program", {"secrets": {"A": {"exec": "/bin/sh"}}}, "--secret-exec"),
        Attack("file artifact", {"artifact": {"url": kept.as_uri(), "checksum": nothing}}, "--file-root"),
        # writing outside
        Attack("target above", {"files": [{"content": "x", "target": f"{up}{outside}/n"}]}, "stay inside"),
        Attack("target absolute", {"files": [{"content": "x", "target": f"{outside}/n"}]}, "relative"),
        Attack("dirs above", {"dirs": {"state": f"{up}{outside}/written"}}, "must stay inside"),
        Attack("target of the agent", {"files": [{"content": "x", "target": ".release/x"}]}, "own name"),
        # being somebody else
        Attack("somebody", {"run": {"command": ["bin/web"], "user": "daemon"}}, "may not run as"),
        Attack("the keeper's variables", {"env": {"EMPTYBOX_BOX": "x"}}, "set by the agent"),
        Attack("no isolation", {"run": {"command": ["bin/web"], "isolation": "none"}}, "isolation"),
        # taking what is not its own
        Attack("a port of the agent's", {"listen": box.admin}, "--allow-port"),
        Attack("the agent's token", {"secrets": {"A": {"file": "token"}}}, "belongs to the agent"),
        Attack("a port of others", {"listen": 22}, "--allow-port"),
    ]  # fmt: skip


async def test_a_hostile_state_gets_nothing_of_the_host(box: Box) -> None:
    outside = box.directory / "outside"
    outside.mkdir()
    (outside / "kept").write_text(KEPT)
    roots = box.directory / "secret-root"
    roots.mkdir()
    (roots / "token").write_text(KEPT)
    box.settings = {
        "--secret-root": str(roots),
        "--control-token-file": str(roots / "token"),
        "--allow-port": str(box.port),
    }
    await box.deploy("1.0")
    await box.start()
    before = await box.proven("1.0")
    async with Load(box.port) as load:
        for attack in attacks(box, outside):
            state = box.state("6.6.6", **attack.parts)
            commit = await box.commit(state, attack.tree)
            status, answer = await box.webhook(commit, wait=True)
            told = json.dumps([answer, (await box.app())["last_failure"]])
            assert (status, answer["result"]) == (409, "failed"), (attack.name, answer)
            assert attack.words in told, (attack.name, told)
            assert KEPT not in told, attack.name
            await box.repository.commit(dict.fromkeys(attack.tree))
        await box.serving("1.0")
    assert load.failures == []
    assert set(load.answers) == {"1.0"}
    after = await box.app()
    assert [after[key] for key in ("current", "child")] == [before[key] for key in ("current", "child")]
    assert sorted(os.listdir(outside)) == ["kept"]
    assert not [path for path in box.data.rglob("*") if path.is_file() and KEPT.encode() in path.read_bytes()]


@pytest.mark.root
async def test_where_users_are_named_no_app_is_root_and_no_command_of_one() -> None:
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "CI must run these as root"
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory() as directory:  # where others than root may pass
        Path(directory).chmod(0o755)
        named = {"--allow-user": "nobody", "--place-root": f"{directory}/srv"}
        async with Box(Path(directory), settings=named) as box:
            await no_root(box)


async def test_the_agents_own_ports_are_for_no_app_whatever_the_settings_allow(box: Box) -> None:
    """Else an app could have the port while one agent makes way for the next."""
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    for listen in (box.admin, {"http": box.port, "more": {"port": box.admin, "address": "127.0.0.1"}}):
        commit = await box.commit(box.state("6.6.6", listen=listen))
        status, answer = await box.webhook(commit, wait=True)
        assert (status, answer["result"]) == (409, "failed")
        assert f"port {box.admin} is the agent's own" in json.dumps(answer)
    await box.serving("1.0")


async def test_an_app_of_files_gets_nowhere_but_below_the_place_roots(box: Box) -> None:
    outside, root = box.directory / "outside", box.directory / "root"
    for directory in (outside, root, root / "taken"):
        directory.mkdir()
    (root / "link").symlink_to(outside)
    (root / "taken" / "file").write_text("somebody's")
    box.settings = {"--place-root": str(root)}
    await box.start()
    places = [outside / "x", root / "../outside/x", root / "link/x", root / "link", root / "taken/file"]
    places += [root, box.data / "x", Path("/proc/self/root") / str(outside / "x")[1:]]
    for place in places:
        app = {"version": "1", "place": str(place), "files": [{"content": "x", "target": "x"}]}
        commit = await box.commit({"schema": 1, "apps": {"files": app}})
        status, answer = await box.webhook(commit, wait=True)
        assert (status, answer["result"]) == (409, "failed"), (place, answer)
    assert os.listdir(outside) == []
    assert sorted(os.listdir(root)) == ["link", "taken"]
    assert (root / "taken" / "file").read_text() == "somebody's"
    assert os.readlink(root / "link") == str(outside)


async def no_root(box: Box) -> None:
    alive = {"alive": "100ms", "probation": "100ms"}
    plain: dict[str, Any] = {"listen": None, "socket": None, "health": alive}
    (box.directory / "srv").mkdir()
    await box.start()
    for run in ({}, {"user": "root"}):
        parts: dict[str, Any] = {**plain, "run": {"command": shell("sleep 60", "run"), **run}}
        await box.deploy("1.0", push=True, **parts)
        app = await box.app_is(last_failure__reason="UserNotAllowed", run=None)
        assert "nobody" in app["last_failure"]["remedy"]
    say = "echo $0 is $(id -un)"
    place = str(box.directory / "srv/x")
    files = {"version": "1.0", "files": [{"content": "x", "target": "x"}], "place": place}
    for command in ({"after": shell(say, "after")}, {"hooks": {"init": shell(say, "init of files")}}):
        commit = await box.commit({"schema": 1, "apps": {"files": files | command}})
        await box.webhook(commit)
        await box.app_is("files", last_failure__reason="UserNotAllowed", run=None)
    await box.deploy(
        "2.0",
        **plain,
        run={"command": shell(f"{say}; while :; do sleep 1; done", "run"), "user": "nobody"},
        files=[{"content": "x", "target": "etc/x", "check": shell(say, "check")}],
        tasks={"warm": {"after": ["unpack"], "command": shell(say, "task")}},
        migrate=[{"name": "m", "command": shell(say, "migrate")}],
        hooks={"init": shell(say, "init")},
        push=True,
    )
    await box.proven("2.0")
    said = "\n".join(box.output)
    for what in ("run", "check", "task", "migrate", "init"):
        assert f"{what} is nobody" in said, what
    assert "is root" not in said


def shell(text: str, name: str) -> list[str]:
    """A command that runs a line of sh, with `name` as its $0."""
    return ["/bin/sh", "-c", text, name]
