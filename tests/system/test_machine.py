"""The box on a plain server: an emulated Debian with systemd does what the operations page says."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.keeper.confine import seccomp
from agent.keeper.confine.system import MACHINES, machine
from tests.kit import intruder
from tests.kit.box import archive
from tests.kit.containers import packed, shell
from tests.kit.git_server import Forge
from tests.kit.image import ROOT, Image, need
from tests.kit.machine import boot
from tests.kit.tables import table

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("image"), pytest.mark.timeout(1800)]
GUEST = Path(__file__).parent / "guest.py"
VERSIONS = ("1.0", "2.0")


def state(version: str, digest: str) -> dict[str, Any]:
    url = f"file:///srv/artifacts/web-{version}.tar.gz"
    web = {
        "version": version,
        "artifact": {"url": url, "checksum": f"sha256:{digest}", "strip": 1},
        "run": {"command": ["python3", "-S", "bin/web"]},
        "listen": 8080,
        "health": {"http": "/healthz", "deadline": "60s", "timeout": "10s", "probation": "2s"},
    }
    return {"schema": 1, "apps": {"web": web}}


def limited(version: str, digest: str) -> dict[str, Any]:
    """The same with limits, and beside it a program that meets its own."""
    wanted = state(version, digest)
    limits = {"memory": "64M", "pids": 60, "cpus": 0.5, "io": {"write": "10M"}}
    wanted["apps"]["web"]["run"]["limits"] = limits
    eat = ["python3", "-S", "-c", "hog = b'x' * (96 << 20); import time; time.sleep(1000)"]
    run = {"command": eat, "limits": {"memory": "32M"}}
    wanted["apps"]["eater"] = {"version": "1", "run": run, "health": {"alive": "60s", "deadline": "200s"}}
    return wanted


def contained(digest: str) -> dict[str, Any]:
    """Two jobs in containers: one says its hostname, then one meets its limit."""
    eat = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    jobs: dict[str, dict[str, Any]] = {
        "a-name": {"command": ["sh", "-c", "cat /proc/sys/kernel/hostname"], "hostname": "HAL-9000"},
        "eater": {"command": ["sh", "-c", eat], "limits": {"memory": "64M"}},
    }
    artifact = {"url": "file:///srv/artifacts/shell.tar", "checksum": f"sha256:{digest}"}
    apps = {
        name: {"version": "1", "artifact": artifact, "job": {"driver": "oci", "timeout": "200s", **job}}
        for name, job in jobs.items()
    }
    return {"schema": 1, "apps": apps}


def blocks() -> dict[str, Any]:
    """What the operations page has typed, by what for; and what the page on isolation says of systemd."""
    section = (
        (ROOT / "docs/operations.md").read_text().split("### As a systemd service")[1].split("\n### ")[0]
    )
    install, upgrade, remove = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    isolation = (ROOT / "docs/isolation.md").read_text()
    limits = isolation.split("```ini\n")[1].split("```")[0]
    rows, settings = table("The same program under systemd"), isolation.split("```ini\n")[2].split("```")[0]
    compared = {
        "settings": settings.splitlines(),
        "table": rows,
        "columns": list(next(iter(rows.values()))),
        "init_module": seccomp.MACHINE_WIDE["init_module"][MACHINES.index(machine())],
    }
    return {"install": install, "upgrade": upgrade, "remove": remove, "limits": limits, "compared": compared}


async def fill(root: Path, scratch: Path) -> None:
    """What the machine finds in /srv: a state repository with two commits, their artifacts; and our files.

    The image's own user and data directory are not there on a server before the installation.
    """
    for file in (root / "etc/passwd", root / "etc/group"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not line.startswith("emptybox:")))
    (root / "var/lib/emptybox").rmdir()
    sources = root / "usr/src/emptybox"
    shutil.copy(intruder.__file__, root / "usr/src/intruder.py")
    shutil.copytree(ROOT / "examples", sources / "examples")
    (root / "srv/artifacts").mkdir()
    commits = {}
    async with Forge(scratch) as forge:
        repository = await forge.repository("state.git")
        for version in VERSIONS:
            data = archive(version)
            (root / f"srv/artifacts/web-{version}.tar.gz").write_bytes(data)
            wanted = state(version, hashlib.sha256(data).hexdigest())
            commits[version] = await repository.put({"state.yaml": json.dumps(wanted)})
            if version == VERSIONS[-1]:
                wanted = limited(version, hashlib.sha256(data).hexdigest())
                commits["limited"] = await repository.put({"state.yaml": json.dumps(wanted)})
        tree = packed(shell())
        (root / "srv/artifacts/shell.tar").write_bytes(tree)
        wanted = contained(hashlib.sha256(tree).hexdigest())
        commits["contained"] = await repository.put({"state.yaml": json.dumps(wanted)})
        shutil.copytree(repository.path, root / "srv/state.git")
    (root / "srv/page.json").write_text(json.dumps(blocks()))
    (root / "srv/commits.json").write_text(json.dumps(commits))


async def test_a_plain_server_goes_through_the_life_of_an_installation(image: Image, tmp_path: Path) -> None:
    need("qemu-system-x86_64", "mkfs.ext4")
    root = image.copy()
    await fill(root, tmp_path)
    said = await asyncio.to_thread(boot, root, GUEST, tmp_path / "disk.img")
    print(said)
    assert "passed everything" in said.splitlines()
