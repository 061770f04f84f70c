"""docs/first-deploy.md, command by command as it is printed; only the ports are free ones."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.kit.git_server import need_git
from tests.kit.ports import free_port

PAGE = (Path(__file__).parents[2] / "docs/first-deploy.md").read_text()
DEADLINE = 60.0


def blocks() -> list[str]:
    found = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


def is_run(block: str) -> bool:
    return block.startswith("emptybox run")


class Reader:
    """Somebody who follows the page, in a home directory of their own."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        (home / "first/venv/bin").mkdir(parents=True)
        command = home / "first/venv/bin/emptybox"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m agent "$@"\n')
        command.chmod(0o755)
        who = {"NAME": "Reader", "EMAIL": "reader@example.org"}
        plain = {name: value for name, value in os.environ.items() if not name.startswith("EMPTYBOX_")}
        self._environment = {
            **plain,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "EMPTYBOX_ADMIN": f"127.0.0.1:{free_port()}",
            **{
                f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in who.items()
            },
        }
        self._always = blocks()[1]
        self._directory = home

    async def type(self, block: str) -> tuple[str, asyncio.subprocess.Process]:
        """Type a block into a terminal; what was shown, and the shell, which goes on if it is the agent's."""
        text = f"{self._always}\n{block}".replace("8080", str(self.port))
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", f"exec 2>&1\n{text}", cwd=self._directory, env=self._environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        if is_run(block):
            return "", shell
        async with asyncio.timeout(DEADLINE):
            shown, _ = await shell.communicate()
        return shown.decode(), shell


async def test_the_page_holds_what_it_promises(tmp_path: Path) -> None:
    need_git()
    reader = Reader(tmp_path)
    install, always, application, state, run, first, second, look, merge, past, clean = blocks()
    assert "pip install" in install
    assert "EMPTYBOX_DATA" in always
    assert is_run(run)
    for block in (application, state):
        shown, shell = await reader.type(block)
        assert shell.returncode == 0, shown
    assert "valid: hello 1.0" in shown
    _, agent = await reader.type(run)
    try:
        async with asyncio.timeout(DEADLINE):
            while "hello from 1.0\n" not in (shown := (await reader.type(first))[0]):
                await asyncio.sleep(0.1)
        assert "hello" in shown
        async with asyncio.timeout(DEADLINE):  # sync follows what is under way; a probation is still to come
            while "running" not in (await reader.type("emptybox status"))[0]:
                await asyncio.sleep(0.1)

        shown, shell = await reader.type(second)
        assert (shell.returncode, shown.endswith("hello from 2.0\n")) == (0, True), shown
        shown, shell = await reader.type(look)
        assert shell.returncode == 0, shown
        assert "version 2.0 -> 3.0" in shown
        shown, shell = await reader.type(merge)
        assert "ProbeFailed" in shown
        assert shown.endswith("hello from 2.0\n"), shown
        shown, shell = await reader.type(past)
        assert shell.returncode == 0
        for told in ("Quarantined", "failed", "succeeded", "GET / HTTP"):
            assert told in shown, shown
    finally:
        os.killpg(agent.pid, signal.SIGINT)
        async with asyncio.timeout(DEADLINE):
            output, _ = await agent.communicate()
        print(output.decode())
    assert agent.returncode == 0
    await reader.type(clean)
    assert not (tmp_path / "first").exists()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (Path(__file__).parents[2] / "docs" / link).exists()
