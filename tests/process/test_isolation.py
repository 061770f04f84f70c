from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded
from agent.domain.spec import IsolationSpec, LimitsSpec
from agent.process.bounds import size_words
from agent.process.cgroups import Cgroups
from agent.process.isolation import Home, Leave, confinement, opened, tier_of
from agent.process.users import DYNAMIC_IDS, dynamic_id, find_user, is_own

HOME = Home(read=(Path("/r"),), write=(Path("/w"),), tmp=Path("/t"))


def order(spec: IsolationSpec, leave: Leave | None = None, **parts: bool) -> dict[str, object]:
    wanted = {"slots": True, "command": False, **parts}
    return dict(confinement(spec, leave or Leave(), HOME, ports={8080}, **wanted)[1])


def test_a_default_may_degrade_and_what_is_asked_for_must_be_there() -> None:
    assert tier_of(IsolationSpec(), "standard") == ("standard", False)
    assert tier_of(IsolationSpec(), "none") == ("standard", False)
    assert tier_of(IsolationSpec(), "strict") == ("strict", True)
    assert tier_of(IsolationSpec(tier="none"), "none") == ("none", True)
    with pytest.raises(OperatorNeeded, match="--weakest-isolation none"):
        tier_of(IsolationSpec(tier="none"), "standard")
    assert order(IsolationSpec())["must"] == []
    assert "ptrace" in str(order(IsolationSpec(tier="standard"))["must"])
    assert "files" in str(order(IsolationSpec(tier="strict"))["must"])


def test_commands_may_signal_the_app_in_standard_and_not_in_strict() -> None:
    assert order(IsolationSpec(), command=True)["landlock"] == {"scopes": []}
    assert "signals" in str(order(IsolationSpec(tier="strict"), command=True)["landlock"])


def test_a_network_of_its_own_is_for_programs_that_are_handed_their_sockets() -> None:
    spec = IsolationSpec(namespaces=("net",))
    assert "net" in str(order(spec)["namespaces"])
    with pytest.raises(OperatorNeeded, match="adopt or fd"):
        order(spec, slots=False)


def test_what_is_closed_is_opened_by_no_list_and_its_neighbours_are(tmp_path: Path) -> None:
    for name in ("a/x", "a/secret", "b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/way").symlink_to("secret")
    real = Path(os.path.realpath(tmp_path))
    found = opened([str(tmp_path)], [real / "a/secret"])
    assert found == [str(real / "a/x"), str(real / "b")]
    assert opened([str(real / "a/way")], [real / "a/secret"]) == []
    assert opened([str(real / "a/secret/inner")], [real / "a/secret"]) == []


def test_where_strict_is_the_weakest_the_operator_says_what_may_be_opened(tmp_path: Path) -> None:
    leave = Leave("strict", roots=(tmp_path,))
    order(IsolationSpec(write=(str(tmp_path / "spool"),)), leave)
    (tmp_path / "way").symlink_to("/")
    for path in ("/", str(tmp_path / "way"), f"{tmp_path}-beside"):
        with pytest.raises(OperatorNeeded, match="--isolation-root") as caught:
            order(IsolationSpec(read=(path,)), leave)
        assert caught.value.reason == "IsolationNotAllowed"


def test_a_group_that_the_user_is_not_in_needs_leave() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with pytest.raises(OperatorNeeded, match="--allow-group 4242"):
        find_user("nobody", ("nobody",), "4242")
    assert find_user("nobody", ("nobody",), "4242", ("4242",)).gid == 4242
    assert find_user("65534", ("nobody",)) == find_user("nobody", ("65534",))
    assert find_user("4242", ("4242",)).gid == 4242
    with pytest.raises(OperatorNeeded, match="may not run as root"):
        find_user("0", ("nobody",))
    assert is_own("0") and not is_own("dynamic")


def test_a_dynamic_number_is_the_apps_own_and_nobody_elses() -> None:
    first = dynamic_id("web", ())
    assert first == dynamic_id("web", ()) and first in DYNAMIC_IDS
    assert dynamic_id("web", {first}) != first
    with pytest.raises(OperatorNeeded, match="all dynamic users are taken"):
        dynamic_id("web", DYNAMIC_IDS)


def tree(root: Path, line: str, mounts: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line)
    (root / "proc/self/mountinfo").write_text(mounts)
    return root / "proc"


def test_version_1_is_used_beside_an_empty_tree_of_version_2(tmp_path: Path) -> None:
    for name in ("memory/own", "pids", "unified"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "unified/cgroup.controllers").write_text("hugetlb\n")
    mounts = "".join(
        f"1 2 0:3 / {tmp_path}/{name} rw - {kind} x rw,{name}\n"
        for name, kind in (("memory", "cgroup"), ("pids", "cgroup"), ("unified", "cgroup2"))
    )
    proc = tree(tmp_path, "4:memory:/own\n8:pids:/\n0::/\n", mounts)
    groups = Cgroups("box", proc)
    ours = f"web~c~{groups.box}"
    for name in (f"memory/own/{ours}", f"pids/{ours}"):
        (tmp_path / name).mkdir()
        for file in ("memory.limit_in_bytes", "pids.max"):
            (tmp_path / name / file).touch()
    made = groups.make("web", "c", LimitsSpec(memory=64 << 20, pids=9))
    assert made == [f"{tmp_path}/memory/own/{ours}", f"{tmp_path}/pids/{ours}"]
    assert (tmp_path / f"memory/own/{ours}/memory.limit_in_bytes").read_text() == str(64 << 20)
    (tmp_path / f"memory/own/{ours}/memory.oom_control").write_text("under_oom 0\noom_kill 2\n")
    assert groups.killed("web", "c") == 2
    assert groups.used()["web"].killed == 2
    with pytest.raises(OperatorNeeded, match="no controller of version 1 here for cpu") as caught:
        groups.make("web", "d", LimitsSpec(cpus=1.0))
    assert caught.value.reason == "LimitsNotPossible"


def test_the_empty_groups_of_another_agent_are_left_alone(tmp_path: Path) -> None:
    """Between being made and entered a group is empty."""
    (tmp_path / "memory").mkdir()
    line = f"1 2 0:3 / {tmp_path}/memory rw - cgroup x rw,memory\n"
    proc = tree(tmp_path, "4:memory:/\n", line)
    one, other = (Cgroups(name, proc) for name in ("one", "other"))
    abandoned, starting = (tmp_path / f"memory/web~c~{groups.box}" for groups in (one, other))
    new = tmp_path / f"memory/web~d~{one.box}"
    for path in (abandoned, starting, new):
        path.mkdir()
    (new / "memory.limit_in_bytes").touch()
    one.make("web", "d", LimitsSpec(memory=64 << 20))
    assert not abandoned.exists()
    assert starting.exists()


def test_without_any_groups_the_message_says_what_can_be_done(tmp_path: Path) -> None:
    groups = Cgroups("box", tree(tmp_path, "0::/\n", ""))
    with pytest.raises(OperatorNeeded, match=r"no control groups are mounted.*run\.rlimits\.data"):
        groups.make("web", "c", LimitsSpec(memory=1 << 20))


def test_sizes_are_said_as_they_are_written() -> None:
    assert [size_words(n) for n in (64 << 20, 1 << 30, 1536 << 10, 1000)] == [
        "64M",
        "1G",
        "1536K",
        "1000 bytes",
    ]
