"""The config.json of containers: as the specification's own schema has it, and as the state says."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from agent.domain.errors import Permanent
from agent.domain.spec import LimitsSpec
from agent.process.oci import groups
from agent.process.oci.bundle import Program, config
from agent.process.oci.origin import SIZE_MAX, Origin, origin

SCHEMAS = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")


@pytest.fixture(scope="module")
def specification() -> Any:
    """Checks a document against the schema that Debian packages with the specification."""
    if not SCHEMAS.is_dir():
        why = "golang-github-opencontainers-specs-dev is not installed"
        (pytest.fail if "CI" in os.environ else pytest.skip)(why)

    def retrieve(uri: str) -> Resource[Any]:
        document = json.loads((SCHEMAS / uri.rpartition("/")[2]).read_text())
        return Resource.from_contents(document, default_specification=DRAFT4)

    schema = json.loads((SCHEMAS / "config-schema.json").read_text())
    registry: Registry[Any] = Registry(retrieve=retrieve)  # type: ignore[call-arg]
    return jsonschema.Draft4Validator(schema, registry=registry)


def program(**parts: Any) -> Program:
    given: dict[str, Any] = {
        "args": ["/a"],
        "env": {"A": "b"},
        "cwd": "/",
        "hostname": "HAL-9000",
        "uid": 0,
        "gid": 0,
    }
    return Program(**(given | parts))


@pytest.mark.parametrize("tier", ["none", "standard", "strict"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_every_tiers_document_is_valid(specification: Any, tier: str, machine: str) -> None:
    whole = program(
        tier=tier,
        uid=1000,
        gid=1000,
        groups=[4],
        rlimits={"NOFILE": 64, "CORE": -1},
        limits=LimitsSpec(memory=1 << 25, cpus=0.5, pids=100, read=1),
        binds=[("/data", "/srv/data", ["rw"]), ("/etc/hosts", "/etc/hosts", ["ro", "noexec"])],
        own_pids=True,
    )
    for one in (whole, program(tier=tier), program(tier=tier, rootless=True)):
        for cgroup in ("web~1", ""):
            specification.validate(config(one, cgroup, machine))


def test_the_schema_refuses_what_is_none(specification: Any) -> None:
    wrong = config(program(), "web~1", "x86_64")
    wrong["linux"]["namespaces"].append({"type": "nothing"})
    with pytest.raises(jsonschema.ValidationError):
        specification.validate(wrong)


def test_the_document_says_what_the_program_does() -> None:
    told = config(program(tier="strict", limits=LimitsSpec(memory=4096), umask=0o77), "web~1", "x86_64")
    assert told["hostname"] == "HAL-9000"
    assert told["process"]["args"] == ["/a"]
    assert told["process"]["env"] == ["A=b"]
    assert told["process"]["user"]["umask"] == 0o77
    assert told["process"]["capabilities"]["bounding"] == []
    assert told["root"]["readonly"]
    assert told["linux"]["resources"]["memory"] == {"limit": 4096}
    assert {"type": "pid"} not in told["linux"]["namespaces"]


def test_without_control_groups_there_are_no_limits_in_it() -> None:
    linux = config(program(limits=LimitsSpec(memory=4096)), "", "x86_64")["linux"]
    assert "cgroupsPath" not in linux
    assert "memory" not in linux["resources"]


def test_in_a_user_namespace_it_has_this_hosts_sys_without_control_groups() -> None:
    told = config(program(rootless=True), "", "x86_64")
    (place,) = [mount for mount in told["mounts"] if mount["destination"] == "/sys"]
    assert (place["type"], place["source"]) == ("bind", "/sys")
    assert {"rbind", "ro"} <= set(place["options"])
    assert "/sys/fs/cgroup" in told["linux"]["maskedPaths"]


def test_nobody_makes_devices_there() -> None:
    told = config(program(tier="none"), "web~1", "x86_64")["process"]["capabilities"]
    assert "CAP_MKNOD" not in told["bounding"]
    assert "CAP_SYS_ADMIN" in told["bounding"]


def test_capabilities_that_the_agent_lacks_are_not_asked_for() -> None:
    told = config(program(held=(0, 5)), "web~1", "x86_64")["process"]["capabilities"]
    assert told["effective"] == ["CAP_CHOWN", "CAP_KILL"]


def bundle(path: Path, text: str | bytes) -> Path:
    (path / "rootfs").mkdir(exist_ok=True)
    (path / "config.json").write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_config_without_a_rootfs_is_a_file_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"process": {"args": ["x"]}}')
    assert origin(tmp_path) == Origin(tmp_path)


def test_of_a_bundle_only_four_things_are_read(tmp_path: Path) -> None:
    process = {
        "args": ["a", "b"],
        "env": ["X=1=2", "LISTEN_FDS=3", "=", "Y"],
        "cwd": "/w",
        "user": {"uid": 5},
    }
    bundle(tmp_path, json.dumps({"process": process, "hostname": "h", "root": {"path": "/"}}))
    assert origin(tmp_path) == Origin(tmp_path / "rootfs", ("a", "b"), {"X": "1=2", "Y": ""}, "/w", "h")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"process": {"args": "x"}}',
        '{"process": {"cwd": "relative"}}',
        '{"hostname": "a\\u0000b"}',
        " " * (SIZE_MAX + 1),
        '{"process": {"args": [' + ",".join(['"x"'] * 1001) + "]}}",
    ],
)
def test_a_config_that_is_none_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(Permanent) as caught:
        origin(bundle(tmp_path, text))
    assert caught.value.reason == "BundleInvalid"


@given(st.binary(max_size=200))
def test_whatever_a_config_holds_it_is_read_or_refused(tmp_path_factory: Any, data: bytes) -> None:
    path = bundle(tmp_path_factory.getbasetemp(), data)
    with contextlib.suppress(Permanent):
        assert origin(path).root == path / "rootfs"


def procfs(path: Path, cgroup: str, *mounts: str) -> Path:
    (path / "self").mkdir(parents=True)
    (path / "self/cgroup").write_text(cgroup)
    (path / "self/mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    return path


def test_the_groups_of_version_2_are_beside_our_own(tmp_path: Path) -> None:
    point = tmp_path / "cgroup"
    (point / "unit.service/emptybox").mkdir(parents=True)
    line = f"1 2 0:3 / {point} rw - cgroup2 cgroup2 rw"
    proc = procfs(tmp_path / "proc", "0::/unit.service/emptybox\n", line)
    assert groups.path_of("web", "web-1", "box", proc) == "/unit.service/web~web-1~box"


def test_groups_are_removed_in_all_trees_of_version_1_and_only_our_own(tmp_path: Path) -> None:
    lines, trees = [], ("memory", "name=systemd")
    for name in trees:
        for group in ("own/web~web-1~box", "own/web~web-2~box", "own/web~web-2~other"):
            (tmp_path / name / group).mkdir(parents=True)
        lines.append(f"1 2 0:3 / {tmp_path / name} rw - cgroup cgroup rw,{name}")
    proc = procfs(tmp_path / "proc", "3:memory:/own\n1:name=systemd:/own\n", *lines)
    assert groups.path_of("web", "web-1", "box", proc) == "web~web-1~box"
    groups.remove("web", "web-1", "box", proc)
    assert not any((tmp_path / name / "own/web~web-1~box").exists() for name in trees)
    groups.sweep("box", proc)
    left = [path.name for name in trees for path in (tmp_path / name / "own").iterdir()]
    assert left == ["web~web-2~other"] * 2
