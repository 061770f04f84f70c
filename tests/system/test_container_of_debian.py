"""A whole Debian, as debootstrap makes one, as the root of containers."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import pytest

from tests.kit.box import Box
from tests.kit.containers import left
from tests.kit.image import Image
from tests.kit.operator import run

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("image"), pytest.mark.timeout(900)]
# What the tree has for other tests; and what only takes time.
LEFT_OUT = ("boot", "opt", "usr/lib/modules", "usr/share", "usr/src", "var/cache", "var/lib/apt")
TASKS = Path(__file__).parents[2] / "examples/jobs/tasks"


async def test_programs_of_a_debian_tree_run_in_it_among_them_the_task_in_python(
    box: Box, image: Image
) -> None:
    archive = box.artifacts / "debian.tar"
    excluded = [word for part in LEFT_OUT for word in ("--exclude", part)]
    packed = await run("pack", str(image.tree), "--root", "-o", str(archive), *excluded)
    assert packed.code == 0, packed.err
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    artifact = {"url": archive.as_uri(), "checksum": f"sha256:{digest}"}
    # awk is behind two links of /etc/alternatives, which are absolute
    script = 'hostname; . /etc/os-release; echo "$VERSION_CODENAME"; awk "BEGIN { print 6 * 7 }"; id -un'
    shell = {"driver": "oci", "hostname": "HAL-9000", "command": ["sh", "-c", script]}
    values = {
        "job": {"driver": "oci", "command": ["bin/values"]},
        "files": [
            {"template": "values.py", "target": "bin/values", "mode": "0755"},
            {"template": "input.json", "target": "input.json"},
        ],
    }
    token = secrets.token_hex(4)
    apps = {
        f"a-{token}": {"version": "12", "artifact": artifact, "job": shell},
        f"b-{token}": {"version": "12", "artifact": artifact, **values},
    }
    files = {name: (TASKS / name).read_text() for name in ("values.py", "input.json")}
    await box.commit({"schema": 1, "apps": apps}, {**files})
    told = await run(*box.command("once")[4:])
    assert (told.code, told.out) == (0, "HAL-9000\nbookworm\n42\nroot\nalpha\nbeta\n"), told.err
    assert [left(box, name) for name in apps] == [[], []]
