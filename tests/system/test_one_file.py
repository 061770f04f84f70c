"""An app that is one executable and unpacks itself, from a bucket: confined, limited, and unpacked once."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.domain.errors import OperatorNeeded
from agent.domain.spec import LimitsSpec
from agent.keeper.confine import landlock
from agent.process.cgroups import Cgroups
from tests.kit.box import Box
from tests.kit.operator import Operator
from tests.kit.s3_server import S3Server

PYTHON = os.path.realpath(sys.executable)
STRICT = {"tier": "strict", "read": [sys.base_prefix]}
IDLE = {
    "version": "1",
    "run": {"command": ["sleep", "1000"]},
    "health": {"alive": "100ms", "probation": "100ms"},
}
MAIN = """
import os, socket
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/eat":
            hog = b"x" * (1 << 28)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"VERSION {os.environ.get('PYTHONUNBUFFERED')} {__file__}".encode())

def run():
    server = HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=3)
    server.serve_forever()
"""


class Bucket(Box):
    """A box whose app is one file, made by shiv, in a bucket."""

    s3: S3Server

    async def put(self, version: str) -> dict[str, Any]:
        """Build a version into the bucket, if it is not there yet; its artifact."""
        source, file = self.directory / f"source-{version}", self.s3.buckets / f"releases/web-{version}.pyz"
        if not file.exists():
            source.mkdir()
            (source / "web.py").write_text(MAIN.replace("VERSION", version))
            shiv = await asyncio.create_subprocess_exec(
                Path(sys.executable).with_name("shiv"), "--reproducible", "--site-packages", source,
                "-p", PYTHON, "-e", "web:run", "-o", file,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            assert await shiv.wait() == 0
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return {"url": f"s3://releases/web-{version}.pyz", "checksum": f"sha256:{digest}"}

    async def release(self, version: str, *, push: bool = True, **run: Any) -> None:
        """Commit a version, beside an app that does nothing."""
        state = self.state(
            version,
            artifact=await self.put(version),
            dirs={"cache": "cache"},
            env={"PYTHONUNBUFFERED": "yes"},
            run={"command": ["bin/web"], **run},
            health={"http": "/", "interval": "100ms", "deadline": "30s", "probation": "200ms"},
        )  # fmt: skip
        state["apps"]["idle"] = IDLE
        commit = await self.commit(state)
        if push:
            await self.webhook(commit)


@pytest.fixture
async def bucket(tmp_path: Path) -> AsyncIterator[Bucket]:
    async with S3Server(tmp_path) as s3:
        settings = {
            "--s3-endpoint": s3.url,
            "--s3-credentials-file": str(s3.credentials),
            "--s3-region": "us-east-1",
        }
        async with Bucket(tmp_path / "box", settings=settings) as box:
            box.s3 = s3
            yield box


async def test_it_unpacks_itself_once_a_version_also_where_it_may_write_nowhere_else(bucket: Bucket) -> None:
    if landlock.version() < 1:
        pytest.skip("needs Landlock")
    await bucket.put("2.0")  # the server does not look into its directory again so soon
    await bucket.release("1.0", push=False, isolation=STRICT)
    await bucket.start()
    app = await bucket.proven("1.0")
    assert app["child"]["isolation"]["tier"] == "strict"
    cache = bucket.data / "apps/web/dirs/cache/shiv"
    status, told = await bucket.get()
    assert (status, told.split()[:2]) == (200, ["1.0", "yes"])
    unpacked = Path(told.split()[2])
    assert unpacked.is_relative_to(cache)
    first = unpacked.stat()
    await bucket.release("2.0", isolation=STRICT)
    await bucket.proven("2.0")
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2

    assert (await Operator(bucket)("rollback", "web", "--to", "1.0")).code == 0
    await bucket.app_is(state="degraded", current__version="1.0")
    assert (await bucket.get())[1].split()[2] == str(unpacked)
    assert (unpacked.stat().st_ino, unpacked.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)

    await bucket.webhook(await bucket.commit({"schema": 1, "apps": {"idle": IDLE}}))

    async def gone() -> bool:
        return "web" not in (await bucket.status())["apps"]

    await bucket.until(gone)
    assert not cache.parent.exists()
    assert cache.parent.parent.exists()


async def test_its_limit_is_in_force_and_told(bucket: Bucket, tmp_path: Path) -> None:
    trial = Cgroups("trial", device=tmp_path)
    try:
        trial.make("trial", "x", LimitsSpec(memory=64 << 20))
    except OperatorNeeded as error:
        pytest.skip(str(error))
    trial.remove("trial", "x")
    await bucket.release("1.0", push=False, limits={"memory": "128M", "cpus": 1})
    await bucket.start()
    await bucket.proven("1.0")
    await bucket.get("/eat")
    app = await bucket.app_is(last_failure__reason="LimitExceeded")
    assert app["last_failure"]["message"] == "version 1.0 was killed by the memory limit of 128M"
