"""The state repository over SSH: a real sshd, followed by the whole agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.ssh_server import Sshd, keygen


@pytest.fixture
async def server(box: Box, tmp_path: Path) -> AsyncIterator[Sshd]:
    async with Sshd(tmp_path / "ssh") as server:
        server.allow(server.key("deploy"))
        box.settings = {
            "--repo": server.url(box.repository.path),
            "--ssh-key": str(server.key("deploy")),
            "--ssh-known-hosts": str(server.known_hosts()),
        }
        yield server
        await box.stop()


async def test_a_push_is_fetched_over_ssh(box: Box, server: Sshd) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    await box.deploy("2.0", push=True)
    await box.proven("2.0")
    assert server.logins() == 1


async def test_a_wrong_host_key_is_refused_and_the_app_untouched(
    box: Box, server: Sshd, tmp_path: Path
) -> None:
    await box.deploy("1.0")
    await box.start()
    before = await box.proven("1.0")
    logins = server.logins()
    other = keygen(tmp_path / "other").with_suffix(".pub").read_text()
    Path(box.settings["--ssh-known-hosts"]).write_text(f"[127.0.0.1]:{server.port} {other}")
    await server.stop()
    await server.start()
    commit = await box.deploy("2.0")
    async with Load(box.port) as load:
        status, answer = await box.webhook(commit, wait=True)
        refused = await box.until(lambda: reachability(box, "HostKeyRefused"))
    assert answer["result"] == "failed", (status, answer)
    assert server.fingerprint() in refused["message"]
    assert load.failures == []
    assert set(load.answers) == {"1.0"}
    assert server.logins() == logins
    after = await box.app()
    assert [after[key] for key in ("current", "good", "child")] == [
        before[key] for key in ("current", "good", "child")
    ]
    assert not list((box.data / "state").glob(f"*{commit}*"))

    server.known_hosts()
    await box.webhook(commit)
    await box.proven("2.0")


async def reachability(box: Box, reason: str) -> dict[str, Any] | None:
    conditions = (await box.status())["conditions"]
    return next((c for c in conditions if c["type"] == "SourceReachable" and c["reason"] == reason), None)
