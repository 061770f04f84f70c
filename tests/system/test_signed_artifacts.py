"""Signed artifacts, required by the agent's settings or asked for by the state, by the whole agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.box import Box, Load
from tests.kit.operator import Operator
from tests.kit.signing import MinisignSigner, SshSigner


@pytest.fixture
def release(tmp_path: Path) -> MinisignSigner:
    return MinisignSigner(tmp_path / "keys")


def sign(box: Box, version: str, signer: MinisignSigner) -> None:
    """Put a signature beside the artifact of this version."""
    box.artifact(version)
    path = box.artifacts / f"web-{version}-good.tar.gz"
    path.with_name(f"{path.name}.minisig").write_bytes(signer.sign(path.read_bytes()))


def require(box: Box, signer: MinisignSigner) -> None:
    box.settings = {**box.settings, "--require-signature": f"*={signer.public}"}


async def test_only_what_a_key_of_the_settings_signed_is_deployed(
    box: Box, release: MinisignSigner, tmp_path: Path
) -> None:
    require(box, release)
    sign(box, "1.0", release)
    await box.deploy("1.0")
    await box.start()
    who = f"minisign {release.public.read_text().splitlines()[0].split()[-1]}"
    app = await box.proven("1.0")
    assert app["current"]["artifact_signer"] == who
    commit = await box.deploy("2.0")
    async with Load(box.port) as load:
        _, answer = await box.webhook(commit, wait=True)
    assert answer["failure"]["reason"] == "ArtifactUnsigned", answer
    assert load.failures == []
    sign(box, "3.0", MinisignSigner(tmp_path / "stranger"))
    commit = await box.deploy("3.0")
    told = await Operator(box)("plan")
    assert "--require-signature * asks for a signature (minisign)" in told.out, told
    _, answer = await box.webhook(commit, wait=True)
    assert answer["failure"]["reason"] == "ArtifactSignatureRefused", answer
    after = await box.app()
    assert [after[key] for key in ("current", "child")] == [app[key] for key in ("current", "child")]
    sign(box, "4.0", release)
    await box.deploy("4.0", push=True)
    await box.proven("4.0")
    assert [run["artifact_signer"] for run in await box.history()] == [who, None, None, who]
    told = await Operator(box)("status")
    assert f"artifact signed by {who}" in told.out, told


async def test_a_new_rule_stops_nothing_that_runs_and_judges_at_the_next_deployment(
    box: Box, release: MinisignSigner
) -> None:
    await box.deploy("1.0")
    await box.start()
    child = (await box.proven("1.0"))["child"]["pid"]
    await box.deploy("2.0", push=True)
    await box.proven("2.0")
    await box.stop()
    require(box, release)
    await box.start()
    await box.app_is(state="running")
    _, answer = await box.webhook(await box.deploy("1.0"), wait=True)
    assert answer["failure"]["reason"] == "ArtifactUnsigned", answer
    told = await Operator(box)("rollback", "web")
    assert told.code == 0, told
    await box.serving("1.0")
    assert (await box.app())["child"]["pid"] != child


async def test_a_key_in_the_state_is_looked_at_without_a_restart(box: Box, tmp_path: Path) -> None:
    await box.deploy("1.0")
    await box.start()
    child = (await box.proven("1.0"))["child"]["pid"]
    ada = SshSigner(tmp_path / "ada")
    state = box.state("1.0")
    state["apps"]["web"]["artifact"]["signature"] = {"ssh": "keys/ada.pub"}
    key = ada.key.with_suffix(".pub").read_bytes()
    _, answer = await box.webhook(await box.commit(state, {"keys/ada.pub": key}), wait=True)
    assert answer["failure"]["reason"] == "ArtifactUnsigned", answer
    path = next(box.artifacts.glob("web-1.0-*.tar.gz"))
    path.with_name(f"{path.name}.sig").write_bytes(ada.sign(path.read_bytes(), "file"))
    assert (await Operator(box)("retry", "web")).code == 0
    app = await box.app_is(current__artifact_signer=f"{_comment(ada)} (SSH {ada.fingerprint})")
    assert app["child"]["pid"] == child


def _comment(signer: SshSigner) -> str:
    return "-".join(signer.key.with_suffix(".pub").read_text().split()[2:]) or "*"
