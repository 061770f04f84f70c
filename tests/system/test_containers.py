"""Programs in containers (`driver: oci`): real ones, made by runc."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box
from tests.kit.containers import Tree, artifact, left, need, processes, served, shell, state
from tests.kit.git_server import Content
from tests.kit.operator import run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs root"),
]

EXAMPLE = Path(__file__).parents[2] / "examples/containers"
UNSET = "sha256:" + 64 * "0"


@pytest.fixture(autouse=True)
def _runtime() -> None:
    need("runc", "gcc", "busybox")


@pytest.fixture(scope="module")
def printme(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program that prints its host's name."""
    directory = tmp_path_factory.mktemp("printme")
    source, made = EXAMPLE / "printme.c", directory / "printme"
    subprocess.run(["gcc", "-O2", "-static", "-o", made, source], check=True, timeout=60)
    return made.read_bytes()


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest, box: Box) -> str:
    """The one that makes containers."""
    need(request.param)
    box.settings["--container-runtime"] = shutil.which(request.param, path="/usr/sbin:/usr/bin") or ""
    return str(request.param)


@pytest.fixture
def name() -> str:
    """An app's name that no other test has: its control groups are looked for."""
    return f"app-{secrets.token_hex(4)}"


def example(box: Box, name: str, printme: bytes) -> tuple[str, dict[str, Content]]:
    """examples/containers as it lies there, with artifacts, and `name` at the end of its apps' names."""
    trees: tuple[Tree, ...] = ({"printme": printme}, shell())
    text = (EXAMPLE / "state.yaml").read_text()
    for tree in trees:
        made = artifact(box, tree)
        text = re.sub(r'"file:///srv/releases/\w+\.tar"', json.dumps(made["url"]), text, count=1)
        text = text.replace(UNSET, made["checksum"], 1)
    for app in ("printme", "search"):
        text = text.replace(f"  {app}:", f"  {app}-{name}:")
    return text, {f"tasks/{file.name}": file.read_text() for file in EXAMPLE.glob("tasks/*")}


async def test_a_static_program_alone_in_its_root_prints_the_hostname_that_it_was_given(
    box: Box, name: str, printme: bytes
) -> None:
    await box.commit(*example(box, name, printme))
    told = await run(*box.command("once")[4:], "--app", f"printme-{name}")
    assert (told.code, told.out) == (0, "HAL-9000\n"), told.err
    assert left(box, f"printme-{name}") == []


async def test_the_search_in_a_container_finds_what_is_there_and_fails_without_its_file(
    box: Box, name: str, printme: bytes
) -> None:
    text, files = example(box, name, printme)
    await box.commit(text, files)
    told = await run(*box.command("once")[4:], "--app", f"search-{name}")
    assert (told.code, told.out) == (0, "an important line\nthe most important of all\n"), told.err

    await box.commit(text.replace("      - {template: tasks/data.txt, target: data.txt}\n", ""), files)
    told = await run(*box.command("once")[4:], "--app", f"search-{name}")
    assert (told.code, told.out) == (1, "data.txt is missing\n"), told.err


async def test_of_a_bundle_args_env_cwd_and_hostname_are_taken_and_nothing_else(box: Box, name: str) -> None:
    config = {
        "ociVersion": "1.0.0",
        "hostname": "HAL-9000",
        "process": {
            "user": {"uid": 12345},
            "args": ["sh", "-c", 'echo "$(cat /proc/sys/kernel/hostname) $WHO $PWD $(id -u)"'],
            "env": ["WHO=itself", "EMPTYBOX_BOX=stolen"],
            "cwd": "/bin",
        },
        "mounts": [{"destination": "/host", "type": "bind", "source": "/", "options": ["rbind"]}],
    }
    files = {f"rootfs/{name}": content for name, content in shell().items()}
    await box.commit(state(box, name, {**files, "config.json": json.dumps(config)}, job={"driver": "oci"}))
    told = await run(*box.command("once")[4:], "--app", name)
    assert (told.code, told.out) == (0, "HAL-9000 itself /bin 0\n"), told.err


def listener(directory: Path) -> bytes:
    """A static server for the socket it is handed."""
    source = Path(__file__).with_name("handed.c")
    subprocess.run(["gcc", "-O2", "-static", "-o", directory / "handed", source], check=True, timeout=60)
    return (directory / "handed").read_bytes()


@pytest.mark.parametrize(
    ("socket", "runtime"),
    [("adopt", "runc"), ("relay", "runc"), ("fd", "runc"), ("fd", "crun")],
    indirect=["runtime"],
)
@pytest.mark.usefixtures("runtime")
async def test_a_server_in_a_container_is_updated_as_any_other(
    box: Box, name: str, socket: str, tmp_path: Path
) -> None:
    def app(version: str) -> dict[str, Any]:
        if socket != "fd":
            return served(box, version, socket)
        files: Tree = {"handed": program, "version": version}
        run = {"command": ["/handed"], "driver": "oci"}
        return {**served(box, version, socket), "artifact": artifact(box, files), "run": run}

    program = listener(tmp_path) if socket == "fd" else b""
    await box.commit({"schema": 1, "apps": {name: app("1.0")}})
    await box.start()
    await box.serving("1.0")
    await box.app_is(name, state="running", good__version="1.0")
    commit = await box.commit({"schema": 1, "apps": {name: app("2.0")}})
    await box.webhook(commit)
    await box.serving("2.0")
    told = await box.app_is(name, state="running", good__version="2.0")
    assert {"container", "overlay", "calls"} <= set(told["child"]["isolation"]["in_force"])
    assert await box.stop() == 0
    assert left(box, name) == []


async def test_twenty_instances_share_the_release_and_none_sees_what_another_writes(
    box: Box, name: str
) -> None:
    big = {"big": os.urandom(8 << 20)}
    task = "[ ! -e /mine ] && touch /mine && exec sleep 1000"
    run = {"command": ["sh", "-c", task], "driver": "oci", "instances": 20}
    app = {"run": run, "health": {"alive": "50ms", "deadline": "20s", "probation": "200ms"}}
    await box.commit(state(box, name, shell(**big), **app))
    await box.start()
    await box.app_is(name, state="running")
    assert len(processes(name)) == 20
    used = sum(path.lstat().st_blocks for path in (box.data / "apps").rglob("*")) * 512
    assert used < 4 << 20, "half of what one copy would take"
    assert await box.stop() == 0
    assert left(box, name) == []


@pytest.mark.usefixtures("runtime")
async def test_limits_hold_in_a_container_and_a_kill_by_them_is_told(box: Box, name: str) -> None:
    eat = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    job = {"driver": "oci", "command": ["sh", "-c", eat], "limits": {"memory": "32M"}}
    await box.commit(state(box, name, shell(), job=job))
    told = await run(*box.command("once")[4:], "--app", name)
    assert told.code != 0
    assert "LimitExceeded" in told.err
    assert left(box, name) == []


@pytest.mark.parametrize(("tier", "seen"), [("standard", "can"), ("strict", "cannot")])
async def test_what_a_container_may_do_is_what_its_tier_says(
    box: Box, name: str, tier: str, seen: str
) -> None:
    tasks = (
        "touch /written 2>/dev/null && echo can || echo cannot; "
        'touch /tmp/x && grep -E "NoNewPrivs|CapEff|Seccomp:" /proc/self/status; exit 7'
    )
    job = {"driver": "oci", "command": ["sh", "-c", tasks], "isolation": tier}
    await box.commit(state(box, name, shell(), job=job))
    told = await run(*box.command("once")[4:], "--app", name)
    capabilities = {"standard": "00000000200425fb", "strict": "0000000000000000"}[tier]
    assert told.out.split() == [seen, "CapEff:", capabilities, "NoNewPrivs:", "1", "Seccomp:", "2"], told.err
    assert told.code == 7


async def test_files_dirs_environment_and_user_are_the_apps_in_a_container(box: Box, name: str) -> None:
    task = 'cat etc/app.conf; echo "$STATE_DIRECTORY $WHO $(id -u)"; echo kept >> data/kept; cat data/kept'
    app = {
        "job": {"driver": "oci", "command": ["sh", "-c", task], "user": "65534"},
        "files": [{"content": "greeting\n", "target": "etc/app.conf"}],
        "dirs": {"state": "data"},
        "env": {"WHO": "me"},
    }
    box.settings["--allow-user"] = "nobody"
    await box.commit(state(box, name, shell(), **app))
    told = await run(*box.command("once")[4:], "--app", name)
    assert told.out == "greeting\n/data me 65534\nkept\n", told.err
    assert (box.data / "apps" / name / "dirs/state/kept").read_text() == "kept\n"
    assert left(box, name) == []


@pytest.mark.usefixtures("runtime")
async def test_a_program_that_is_not_there_is_told_as_that(box: Box, name: str) -> None:
    await box.commit(state(box, name, shell(), job={"driver": "oci", "command": ["/bin/nothing"]}))
    told = await run(*box.command("once")[4:], "--app", name)
    assert told.code != 0
    assert "CommandNotFound" in told.err
    assert left(box, name) == []


async def test_where_there_is_no_overlayfs_the_release_is_copied_and_that_is_told(
    box: Box, name: str, tmp_path: Path
) -> None:
    places = [tmp_path / part for part in ("lower", "upper", "work", "merged")]
    for place in places:
        place.mkdir()
    lower, upper, work, merged = places
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    script = f'mount -t overlay overlay -o {options} {merged} && exec "$@"'
    box.wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"]
    box.data = merged / "data"  # an upper directory cannot be on an overlayfs itself
    await box.commit({"schema": 1, "apps": {name: served(box, "1.0", "adopt")}})
    await box.start()
    await box.serving("1.0")
    told = await box.app_is(name, state="running", good__version="1.0")
    assert "each start copies the release" in told["child"]["isolation"]["lacking"]["overlay"]
    assert await box.stop() == 0
    assert left(box, name) == []
