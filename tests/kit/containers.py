"""What tests of containers are made of: trees as artifacts, apps in containers, and what is left of them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box

Tree = dict[str, bytes | str]


def need(*programs: str) -> None:
    """Skip the test where one of them is missing; but fail in CI."""
    missing = [
        name for name in programs if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None
    ]
    if missing:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"not installed: {', '.join(missing)}")


def packed(files: Tree) -> bytes:
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


def shell(**more: bytes | str) -> Tree:
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


def artifact(box: Box, files: Tree) -> dict[str, Any]:
    """An archive of the files, as a state names it."""
    data = packed(files)
    digest = hashlib.sha256(data).hexdigest()
    (box.artifacts / digest).write_bytes(data)
    return {"url": (box.artifacts / digest).as_uri(), "checksum": f"sha256:{digest}"}


def state(box: Box, name: str, tree: Tree, **app: Any) -> dict[str, Any]:
    """A state of one app."""
    return {"schema": 1, "apps": {name: {"version": "1.0", "artifact": artifact(box, tree), **app}}}


def bundles(box: Box) -> list[str]:
    """Directories of containers, with the runtime's state in them."""
    return [str(path) for path in (box.data / "apps").glob("*/instances/*/.oci/*")]


def groups(name: str) -> list[str]:
    """Control groups of an app's containers, in all trees."""
    return [
        f"{top}/{group}"
        for top, names, _ in os.walk("/sys/fs/cgroup")
        for group in names
        if group.startswith(f"{name}~")
    ]


def mounts(box: Box) -> list[str]:
    """Roots of containers that are mounted, in whatever namespace; for each that has it once."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            space = os.readlink(f"/proc/{pid}/ns/mnt")
            if space not in found:
                lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                found[space] = [line for line in lines if f"{box.data}/" in line and " - overlay " in line]
    return [line for lines in found.values() for line in lines]


def left(box: Box, name: str) -> list[str]:
    """All of these."""
    return [*mounts(box), *groups(name), *bundles(box)]


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


def processes(name: str) -> list[int]:
    """Pids of an app's processes, wherever they are."""
    found, mark = [], f"EMPTYBOX_APP={name}\0".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(int(pid))
    return found
