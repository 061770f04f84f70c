"""Programs in containers (`driver: oci`): real ones, made by runc."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box
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
    missing = [name for name in ("runc", "gcc", "busybox") if shutil.which(name) is None]
    if missing:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def printme(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program that prints its host's name."""
    directory = tmp_path_factory.mktemp("printme")
    source, made = EXAMPLE / "printme.c", directory / "printme"
    subprocess.run(["gcc", "-O2", "-static", "-o", made, source], check=True, timeout=60)
    return made.read_bytes()


def packed(files: dict[str, bytes | str]) -> bytes:
    """A tar of programs (bytes), links ("-> target") and texts."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str) and content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content.removeprefix("-> ")
                tar.addfile(info)
                continue
            data = content.encode() if isinstance(content, str) else content
            info.size, info.mode = len(data), 0o755 if isinstance(content, bytes) else 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def shell(**more: bytes | str) -> dict[str, bytes | str]:
    """A tree with a shell in it."""
    busybox = Path(shutil.which("busybox") or "").read_bytes()
    tools = (
        "sh",
        "cat",
        "echo",
        "sleep",
        "httpd",
        "id",
        "ls",
        "touch",
        "grep",
        "test",
        "printf",
        "env",
        "kill",
    )
    return {"bin/busybox": busybox, **{f"bin/{tool}": "-> busybox" for tool in tools}, **more}


def artifact(box: Box, files: dict[str, bytes | str]) -> dict[str, Any]:
    """An archive of the files, as a state names it."""
    data = packed(files)
    digest = hashlib.sha256(data).hexdigest()
    (box.artifacts / digest).write_bytes(data)
    return {"url": (box.artifacts / digest).as_uri(), "checksum": f"sha256:{digest}"}


@pytest.fixture
def name() -> str:
    """An app's name that no other test has: its control groups are looked for."""
    return f"app-{secrets.token_hex(4)}"


def state(box: Box, name: str, tree: dict[str, bytes | str], **app: Any) -> dict[str, Any]:
    """A state of one app."""
    return {"schema": 1, "apps": {name: {"version": "1.0", "artifact": artifact(box, tree), **app}}}


def left(box: Box, name: str) -> list[str]:
    """Mounts, control groups and bundles that are there on this host."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(box.data) in line]
    groups = [
        f"{top}/{group}"
        for top, names, _ in os.walk("/sys/fs/cgroup")
        for group in names
        if group.startswith(f"{name}~")
    ]
    return [*mounts, *groups, *map(str, (box.data / "apps").glob("*/instances/*/.oci/*"))]


def example(box: Box, name: str, printme: bytes) -> tuple[str, dict[str, Content]]:
    """examples/containers as it lies there, with artifacts, and `name` at the end of its apps' names."""
    trees: tuple[dict[str, bytes | str], ...] = ({"printme": printme}, shell())
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


def served(box: Box, version: str, socket: str, **more: Any) -> dict[str, Any]:
    """An app that serves its version: busybox's httpd, which binds its port by itself."""
    command = ["sh", "-c", 'exec httpd -f -p "127.0.0.1:$PORT" -h /www']
    return {
        "version": version,
        "artifact": artifact(box, shell(**{"www/index.html": f"{version}\n"})),
        "run": {"command": command, "driver": "oci", **more.pop("run", {})},
        "listen": {"http": {"port": box.port, "address": "127.0.0.1"}},
        "socket": socket,
        "health": {"http": "/", "interval": "100ms", "deadline": "20s", "probation": "1s"},
        **more,
    }


def listener(directory: Path) -> bytes:
    """A static server for the socket it is handed."""
    source = Path(__file__).with_name("handed.c")
    subprocess.run(["gcc", "-O2", "-static", "-o", directory / "handed", source], check=True, timeout=60)
    return (directory / "handed").read_bytes()


@pytest.mark.parametrize("socket", ["adopt", "relay", "fd"])
async def test_a_server_in_a_container_is_updated_as_any_other(
    box: Box, name: str, socket: str, tmp_path: Path
) -> None:
    def app(version: str) -> dict[str, Any]:
        if socket != "fd":
            return served(box, version, socket)
        files: dict[str, bytes | str] = {"handed": program, "version": version}
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


def processes(name: str) -> list[int]:
    """Pids of an app's processes, wherever they are."""
    found, mark = [], f"EMPTYBOX_APP={name}\0".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(int(pid))
    return found


def holding_runtime(directory: Path) -> Path:
    """A runtime that creates a container, and starts it when the file `hold` is gone; its pid is in `at`."""
    path = directory / "runtime"
    runc = shutil.which("runc")
    path.write_text(
        f"""#!/bin/sh
general="$1 $2 $3 $4 $5 $6"
shift 8  # run --detach
{runc} $general create "$@" || exit 1
for name; do :; done
if [ -e {directory}/hold ]; then
  echo $$ > {directory}/.at && mv {directory}/.at {directory}/at
  while [ -e {directory}/hold ]; do sleep 0.05; done
fi
exec {runc} $general start "$name"
"""
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("victim", "made"), [("runtime", False), ("agent", False), ("keeper", False), ("keeper", True)]
)
async def test_nothing_is_left_of_a_container_that_was_killed_with_whoever_kept_it(
    box: Box, name: str, tmp_path: Path, victim: str, made: bool
) -> None:
    box.settings["--container-runtime"] = str(holding_runtime(tmp_path))
    if not made:
        (tmp_path / "hold").touch()
    await box.commit({"schema": 1, "apps": {name: served(box, "1.0", "adopt")}})
    await box.start()
    if made:
        await box.serving("1.0")
    else:
        await box.until(lambda: _true((tmp_path / "at").exists()))
    assert box.process is not None
    if victim == "keeper":
        box.process.kill()
        await box.ended()
        await box.until(lambda: _true(not processes(name)))
    else:
        pid = int((tmp_path / "at").read_text()) if victim == "runtime" else await box.agent_pid()
        os.kill(pid, signal.SIGKILL)
    (tmp_path / "hold").unlink(missing_ok=True)
    if victim == "keeper":
        await box.start()
    await box.serving("1.0")
    assert await box.stop() == 0
    assert processes(name) == []
    assert left(box, name) == []


async def _true(value: bool) -> bool:
    return value


async def test_instances_share_the_release_and_none_sees_what_another_writes(box: Box, name: str) -> None:
    big = {"big": os.urandom(8 << 20)}
    task = "[ ! -e /mine ] && touch /mine && exec sleep 1000"
    run = {"command": ["sh", "-c", task], "driver": "oci", "instances": 3}
    app = {"run": run, "health": {"alive": "200ms", "deadline": "20s", "probation": "1s"}}
    await box.commit(state(box, name, shell(**big), **app))
    await box.start()
    await box.app_is(name, state="running")
    assert len(processes(name)) == 3
    used = sum(path.lstat().st_blocks for path in (box.data / "apps").rglob("*")) * 512
    assert used < 1 << 20
    assert await box.stop() == 0
    assert left(box, name) == []


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
