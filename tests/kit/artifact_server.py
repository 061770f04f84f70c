"""A real nginx on a free loopback port, serving a directory of artifacts.

    async with ArtifactServer(tmp_path) as server:
        server.put("web.tar.gz", data)              # server.url + "/web.tar.gz"
        await server.requests(2)                    # the access log, once it has so many lines

The listening socket is made here and inherited (NGINX variable), so that there is no race for the port and
nothing to wait for. Needs the nginx-light package: without it tests are skipped, but fail in CI.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_CONFIG = """
daemon off; worker_processes 1; {user} pid {base}/nginx.pid; error_log {base}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format tests '$connection\t$request_method\t$request_uri\t$status\t$http_accept_encoding';
  access_log {base}/access.log tests;
  client_body_temp_path {base}/t1; proxy_temp_path {base}/t2; fastcgi_temp_path {base}/t3;
  uwsgi_temp_path {base}/t4; scgi_temp_path {base}/t5;
  default_type application/octet-stream; sendfile on; tcp_nopush on; keepalive_timeout 120s;
  gzip on; gzip_types *; gzip_min_length 1;
  server {{
    listen 127.0.0.1:{port} {ssl};
    {tls}
    root {root};
    {locations}
  }}
}}
"""


def need_nginx() -> str:
    """The path of nginx; without it skip the test, but fail in CI."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have nginx")
        pytest.skip("nginx is missing")
    return path


@dataclass(frozen=True)
class Served:
    """One line of the access log."""

    connection: str
    method: str
    path: str
    status: int
    accept_encoding: str


class ArtifactServer:
    """nginx with `root` as its files; `locations` is more of its configuration.

    With `certificate` and `key` (PEM files) it speaks https.
    """

    def __init__(
        self, base: Path, *, locations: str = "", certificate: Path | None = None, key: Path | None = None
    ) -> None:
        self.base = base / "nginx"
        self.root = base / "artifacts"
        self.url = ""
        self.port = 0
        self._locations = locations
        self._tls = (certificate, key) if certificate and key else None
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        nginx = need_nginx()
        self.base.mkdir()
        self.root.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.port = listener.getsockname()[1]
            self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
            config = self.base / "nginx.conf"
            config.write_text(self._config())
            self._process = await asyncio.create_subprocess_exec(
                nginx, "-e", str(self.base / "error.log"), "-c", str(config),
                env={"NGINX": f"{listener.fileno()};", "PATH": os.environ["PATH"]},
                pass_fds=(listener.fileno(),),
                stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        await self._started()
        return self

    async def _started(self) -> None:
        """nginx has read its configuration (it could be asked earlier, but not that it fails)."""
        assert self._process is not None
        async with asyncio.timeout(10):
            while not (self.base / "nginx.pid").exists():
                if self._process.returncode is not None:
                    raise AssertionError((self.base / "error.log").read_text())
                await asyncio.sleep(0.002)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()

    def put(self, name: str, data: bytes) -> str:
        """Serve `data` as `name`; returns its URL."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(data)
        beside.rename(path)
        return f"{self.url}/{name}"

    async def requests(self, count: int, deadline: float = 10.0) -> list[Served]:
        """The access log once it has at least `count` lines: nginx writes it after it has answered."""
        async with asyncio.timeout(deadline):
            while len(lines := self._log()) < count:
                await asyncio.sleep(0.005)
        return lines

    def _log(self) -> list[Served]:
        try:
            text = (self.base / "access.log").read_text()
        except FileNotFoundError:
            return []
        served = []
        for line in text.splitlines():
            connection, method, path, status, encoding = line.split("\t")
            served.append(Served(connection, method, path, int(status), encoding))
        return served

    def _config(self) -> str:
        tls = ""
        if self._tls:
            tls = f"ssl_certificate {self._tls[0]}; ssl_certificate_key {self._tls[1]};"
        return _CONFIG.format(
            base=self.base,
            user="user root;" if os.geteuid() == 0 else "",
            root=self.root,
            port=self.port,
            ssl="ssl" if self._tls else "",
            tls=tls,
            locations=self._locations,
        )
