"""A real OCI registry (docker-registry) on a free loopback port, filled by skopeo, umoci and by hand.

    async with Registry(tmp_path) as registry:
        image = layout(tmp_path, [tar1, tar2])              # an OCI image layout, by umoci
        digest = await registry.copy(image, "team/app:1")   # by skopeo
        registry.asked("GET", "/blobs/")                    # its access log

With `login` it wants a name and password (htpasswd), with `auth` whatever that part of its settings says.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import bcrypt
import pytest

from tests.kit.ports import free_port

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_SAID = re.compile(r'"(GET|HEAD) (/v2/\S*) HTTP/1.1" (\d+)')


def need(*programs: str) -> None:
    """Skip the test where one of them is missing, but fail in CI."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI must have {', '.join(missing)}")
    if missing:
        pytest.skip(f"{', '.join(missing)} missing")


class Registry:
    """docker-registry with its data below `base`. `host` is HOST:PORT, spoken to in plain http."""

    def __init__(
        self,
        base: Path,
        *,
        login: tuple[str, str] | None = None,
        auth: Mapping[str, Any] | None = None,
        data: Path | None = None,
    ) -> None:
        self.base = base / "registry"
        self.data = data or self.base / "data"
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.login = login
        self._auth = auth
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        need("docker-registry", "skopeo", "umoci")
        self.base.mkdir()
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.data)},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.host},
        }
        if self.login is not None:
            user, password = self.login
            hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
            (self.base / "htpasswd").write_text(f"{user}:{hashed}\n")
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.base / "htpasswd")}}
        if self._auth is not None:
            config["auth"] = dict(self._auth)
        path = self.base / "config.yml"
        path.write_text(json.dumps(config))
        with (self.base / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                "docker-registry",
                "serve",
                str(path),
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
            )
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    await writer.wait_closed()
                    return self
                assert self._process.returncode is None, self._log()
                await asyncio.sleep(0.01)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()

    async def copy(self, source: Path, name: str, *more: str) -> str:
        """Push an OCI image layout with skopeo; returns the digest that the registry now has it under."""
        login = ("--dest-creds", ":".join(self.login)) if self.login else ()
        await run(
            "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *login, *more,
            f"oci:{source}", f"docker://{self.host}/{name}",
        )  # fmt: skip
        login = ("--creds", ":".join(self.login)) if self.login else ()
        raw = await run(
            "skopeo", "inspect", "--raw", "--tls-verify=false", *login, f"docker://{self.host}/{name}"
        )
        return "sha256:" + hashlib.sha256(raw).hexdigest()

    async def blob(self, name: str, data: bytes) -> dict[str, Any]:
        """Push a blob by hand; returns its descriptor."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        async with aiohttp.ClientSession() as session:
            async with session.post(f"http://{self.host}/v2/{name}/blobs/uploads/") as answer:
                assert answer.status == 202, await answer.text()
                place = answer.headers["Location"]
            joint = "&" if "?" in place else "?"
            async with session.put(f"{place}{joint}digest={digest}", data=io.BytesIO(data)) as answer:
                assert answer.status == 201, await answer.text()
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(data)}

    async def manifest(self, name: str, tag: str, document: Mapping[str, Any]) -> str:
        """Push a manifest by hand; returns its digest."""
        data = json.dumps(document).encode()
        kind = {"Content-Type": document["mediaType"]}
        async with aiohttp.ClientSession() as session:
            async with session.put(
                f"http://{self.host}/v2/{name}/manifests/{tag}", data=data, headers=kind
            ) as answer:
                assert answer.status == 201, await answer.text()
        return "sha256:" + hashlib.sha256(data).hexdigest()

    async def artifact(self, name: str, tag: str, files: Mapping[str, bytes]) -> str:
        """Push files as ORAS does, each a layer with its name as a title; returns the manifest's digest."""
        layers = []
        for title, data in files.items():
            layer = await self.blob(name, data)
            layers.append(
                {
                    **layer,
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "annotations": {"org.opencontainers.image.title": title},
                }
            )
        config = await self.blob(name, b"{}")
        return await self.manifest(
            name,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": IMAGE,
                "artifactType": "application/vnd.emptybox.test",
                "config": {**config, "mediaType": "application/vnd.oci.empty.v1+json"},
                "layers": layers,
            },
        )

    def damage(self, digest: str) -> None:
        """Change the first byte of a blob on the registry's disk: it serves that unchecked."""
        hexadecimal = digest.removeprefix("sha256:")
        path = self.data / f"docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
        data = bytearray(path.read_bytes())
        data[0] ^= 0xFF
        path.write_bytes(data)

    def asked(self, method: str, part: str) -> list[str]:
        """Paths of the requests so far with this method and `part` in them, that were granted."""
        found = _SAID.findall(self._log())
        return [path for how, path, status in found if how == method and part in path and status == "200"]

    def _log(self) -> str:
        return (self.base / "log").read_text(errors="replace")


async def run(*command: str) -> bytes:
    """Run a program to its end; returns what it printed. Fails with all it said."""
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command[0]}: {(done.stdout + done.stderr).decode()[-2000:]}"
    return done.stdout


async def layout(base: Path, layers: Sequence[bytes], name: str = "image") -> Path:
    """An OCI image layout of these tars, made by umoci; the image in it has the tag `latest`."""
    need("umoci")
    path = base / name
    await run("umoci", "init", "--layout", str(path))
    await run("umoci", "new", "--image", f"{path}:latest")
    for number, layer in enumerate(layers):
        tar = base / f"{name}-{number}.tar"
        tar.write_bytes(layer)
        await run("umoci", "raw", "add-layer", "--image", f"{path}:latest", str(tar))
    return path


async def layers_of(path: Path) -> list[str]:
    """Digests of the layers of a layout's image, lowest first."""
    index = json.loads((path / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((path / "blobs/sha256" / digest).read_text())
    return [layer["digest"] for layer in manifest["layers"]]
