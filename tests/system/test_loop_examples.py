"""Examples from a build to a running version: each README as it is printed; only the ports are free ones."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.kit.artifact_server import need_nginx
from tests.kit.git_server import need_git
from tests.kit.image import pip_settings
from tests.kit.ports import free_port
from tests.kit.registry import need

EXAMPLES = Path(__file__).parents[2] / "examples"
STAYING = ("emptybox run", "nginx ", "docker-registry ", "rclone ")
PORTS = ("5000", "8000", "8080", "9000")
DEADLINE = 90.0


class Reader:
    """Somebody who follows a README in a copy of its directory, in as many terminals as it takes."""

    def __init__(self, example: str, base: Path) -> None:
        self.place = base / example
        self._ports = {port: str(free_port()) for port in PORTS}
        shutil.copytree(EXAMPLES / example, self.place)
        for path in self.place.rglob("*"):
            if path.suffix in (".md", ".yaml", ".yml", ".conf"):
                path.write_text(self._own(path.read_text()))
        page = (self.place / "README.md").read_text()
        self.blocks = [
            str(block) for block in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        ]
        self.always = ""
        self._environment = self._around(base)
        self._staying: list[asyncio.subprocess.Process] = []

    def _own(self, text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: self._ports[found[0]], text)

    def _around(self, base: Path) -> dict[str, str]:
        commands = base / "bin"
        commands.mkdir()
        (commands / "emptybox").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m agent "$@"\n')
        (commands / "emptybox").chmod(0o755)
        plain = {n: v for n, v in os.environ.items() if not n.startswith(("EMPTYBOX_", "AWS_", "GIT_"))}
        who = {"NAME": "Reader", "EMAIL": "reader@example.org"}
        return {
            **plain,
            "PATH": f"{commands}:{Path(sys.executable).parent}:{plain['PATH']}:/usr/sbin",
            "HOME": str(base),
            "PYTHONPATH": str(EXAMPLES.parent),
            "EMPTYBOX_ADMIN": f"127.0.0.1:{free_port()}",
            **{f"GIT_{role}_{name}": v for role in ("AUTHOR", "COMMITTER") for name, v in who.items()},
        }

    async def type(self, block: str) -> str:
        """Type a block into a terminal; what was shown, nothing yet when it stays."""
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", f"set -e\nexec 2>&1\n{self.always}\n{block}", cwd=self.place, env=self._environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        if any(line.startswith(STAYING) for line in block.splitlines()):
            self._staying.append(shell)
            return ""
        async with asyncio.timeout(DEADLINE):
            shown, _ = await shell.communicate()
        assert shell.returncode == 0, f"{block}\n{shown.decode()}"
        return shown.decode()

    async def until(self, block: str, fits: Callable[[str], bool]) -> str:
        """Type a block again and again, until what is shown fits."""
        shown = "nothing"
        try:
            async with asyncio.timeout(DEADLINE):
                while True:
                    try:
                        if fits(shown := await self.type(block)):
                            return shown
                    except AssertionError as error:
                        shown = str(error)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"at last: {shown}") from None

    async def leave(self) -> None:
        """Ctrl-C in all terminals that are left, the last first."""
        for shell in reversed(self._staying):
            os.killpg(shell.pid, signal.SIGINT)
            try:
                async with asyncio.timeout(DEADLINE):
                    shown, _ = await shell.communicate()
            except TimeoutError:
                os.killpg(shell.pid, signal.SIGKILL)
                raise
            print(shown.decode(errors="replace"))


@asynccontextmanager
async def reading(example: str, tmp_path: Path) -> AsyncIterator[Reader]:
    need_git()
    reader = Reader(example, tmp_path)
    try:
        yield reader
    finally:
        await reader.leave()


def says(text: str) -> Callable[[str], bool]:
    return lambda shown: shown == text


async def listening(reader: Reader, port: str) -> None:
    """Until the server of a README answers there."""
    await reader.until(f"exec 3<>/dev/tcp/127.0.0.1/{reader._ports[port]}", lambda _: True)


async def test_a_static_binary(tmp_path: Path) -> None:
    need_nginx()
    need("gcc")
    async with reading("static-c", tmp_path) as reader:
        state, server, first, agent, look, second, kept = reader.blocks
        await reader.type(state)
        await reader.type(server)
        await listening(reader, "8000")
        await reader.type(first)
        await reader.type(agent)
        await reader.until(look, says("hello from 1.0\n"))
        assert (await reader.type(second)).endswith("hello from 2.0\n")
        file = await reader.type(kept)
        assert '    version: "2.0"   # nothing was published yet\n' in file
        assert "/hello-{{ version }}\n" in file


async def test_a_node_app(tmp_path: Path) -> None:
    need("node")
    async with reading("node", tmp_path) as reader:
        state, first, same, agent, look, second = reader.blocks
        await reader.type(state)
        await reader.type(first)
        digests = re.findall(r"^(?:sha256:)?([0-9a-f]{64})", await reader.type(same), re.MULTILINE)
        assert len(digests) == 2
        assert len(set(digests)) == 1
        await reader.type(agent)
        await reader.until(look, says("hello from 1.0.0\n"))
        assert (await reader.type(second)).endswith("hello from 1.1.0\n")


async def test_two_layers_of_which_one_moves(tmp_path: Path) -> None:
    need("docker-registry")
    async with reading("two-layers", tmp_path) as reader:
        state, registry, first, agent, look, second = reader.blocks
        await reader.type(state)
        await reader.type(registry)
        await listening(reader, "5000")
        assert " MiB sent" in await reader.type(first)
        await reader.type(agent)
        await reader.until(look, says("hello from 1.0, with 200000 words\n"))
        shown = await reader.type(second)
        assert shown.endswith("hello from 1.1, with 200000 words\n")
        assert re.search(r"legacy:1.1  [0-9.]+ KiB sent", shown)
        layers = list((reader.place / "data/store/layers").iterdir())
        assert len(layers) == 3  # the large one is there once


async def test_a_python_app_in_one_file(tmp_path: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the page says amd64")
    pip_settings(tmp_path)
    async with reading("python-web", tmp_path) as reader:
        always, state, server, build, first, agent, look, second = reader.blocks
        reader.always = always
        await reader.type(state)
        await reader.type(server)
        await listening(reader, "9000")
        digests = re.findall(r"^([0-9a-f]{64})  web.pyz$", await reader.type(build), re.MULTILINE)
        assert len(digests) == 2
        assert len(set(digests)) == 1
        await reader.type(first)
        await reader.type(agent)
        await reader.until(look, says("hello from 1.0\n"))
        shown = await reader.type(second)
        assert "hello from 2.0\nweb" in shown
