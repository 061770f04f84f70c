"""Archives of every kind through the whole agent; a hostile one is refused and what serves stays."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from agent.cli.demo import server as sample
from tests.kit.archives import Tar
from tests.kit.box import Box
from tests.kit.odd_archives import COMPRESS, gnu_sparse
from tests.kit.zips import Zip

PROGRAM = Path(sample.__file__).read_bytes()
HEALTH = {"http": "/healthz", "interval": "50ms", "deadline": "10s", "probation": "100ms"}


def tar(version: str) -> bytes:
    data = (
        Tar().file("web/bin/web", PROGRAM, mode=0o755).file("web/bin/VERSION", f"{version} good\n".encode())
    )
    return data.symlink("web/latest", "bin/web").hardlink("web/again", "web/bin/web").end()


def zipped(version: str) -> bytes:
    archive = Zip().file("web/bin/web", PROGRAM, mode=0o100755)
    return archive.file("web/bin/VERSION", f"{version} good\n".encode()).end()


KINDS = {
    "tar": tar("1.0"),
    "tar.gz": gzip.compress(tar("1.0")),
    "tar.bz2": COMPRESS["bzip2"](tar("1.0")),
    "tar.xz": COMPRESS["xz"](tar("1.0")),
    "tar.zst": COMPRESS["zstd"](tar("1.0")),
    "zip": zipped("1.0"),
}
HOSTILE = {
    "tar.zst": COMPRESS["zstd"](Tar().file("web/bin/web", PROGRAM).file("../../evil").end()),
    "zip": Zip().file("web/bin/web", PROGRAM).file("../../evil").end(),
    "tar": Tar().raw(gnu_sparse("../../evil", [(0, 1)], 10, b"x")).end(),
}


def artifact(box: Box, name: str, data: bytes) -> dict[str, Any]:
    path = box.artifacts / name
    path.write_bytes(data)
    return {"url": path.as_uri(), "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}", "strip": 1}


async def test_one_compressed_program_is_deployed(box: Box) -> None:
    whole = b'with open(os.path.join(here, "VERSION")) as file:'
    program = PROGRAM.replace(whole, b'with __import__("io").StringIO("1.0 good") as file:')
    assert program != PROGRAM
    source = artifact(box, "web.gz", gzip.compress(program)) | {"archive": "gz"}
    del source["strip"]
    await box.deploy("1.0", artifact=source, health=HEALTH)
    await box.start()
    await box.proven("1.0")
    await box.serving("1.0")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_archive_of_this_kind_is_deployed(kind: str, box: Box) -> None:
    await box.deploy("1.0", artifact=artifact(box, f"web.{kind}", KINDS[kind]), health=HEALTH)
    await box.start()
    await box.proven("1.0")
    await box.serving("1.0")


async def test_a_hostile_archive_is_refused_by_name_and_what_serves_stays(box: Box) -> None:
    await box.deploy("1.0", artifact=artifact(box, "web.zip", KINDS["zip"]), health=HEALTH)
    await box.start()
    pid = (await box.proven("1.0"))["child"]["pid"]
    trees = set(os.listdir(box.data / "store/trees"))
    for number, (kind, data) in enumerate(HOSTILE.items(), start=2):
        version = f"{number}.0"
        await box.deploy(version, push=True, artifact=artifact(box, f"evil.{kind}", data), health=HEALTH)
        app = await box.app_is(wanted__version=version, last_failure__reason="ArchiveRefused", run=None)
        assert "../../evil" in app["last_failure"]["message"]
        assert app["child"]["pid"] == pid
        await box.serving("1.0")
    assert set(os.listdir(box.data / "store/trees")) == trees
    assert not list(box.directory.rglob("evil"))
