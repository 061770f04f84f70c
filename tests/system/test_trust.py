"""Who said so: signatures and forced pushes, judged by the whole agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box, Load
from tests.kit.operator import Operator
from tests.kit.signing import SshSigner


@pytest.fixture
def ada(tmp_path: Path) -> SshSigner:
    return SshSigner(tmp_path / "keys" / "ada")


def require(box: Box, mode: str, *signers: SshSigner) -> Path:
    """Let the agent require signatures of these signers; the file of keys."""
    path = box.directory / "signers"
    path.write_text("".join(signer.line() for signer in signers))
    box.settings = {**box.settings, "--signed": mode, "--ssh-signers": str(path)}
    return path


async def refused(box: Box, commit: str, reason: str) -> dict[str, Any]:
    """Tell the agent of a commit that it must refuse; the failure. What serves must not notice."""
    before = await box.app()
    async with Load(box.port) as load:
        status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["result"]) == (409, "failed"), answer
    assert answer["failure"]["reason"] == reason, answer
    assert load.failures == []
    after = await box.app()
    assert [after[key] for key in ("current", "child")] == [before[key] for key in ("current", "child")]
    condition = next(c for c in (await box.status())["conditions"] if c["type"] == "StateValid")
    assert (condition["status"], condition["reason"]) == ("False", reason)
    return dict(answer["failure"])


async def test_only_a_signed_commit_is_deployed_and_its_signer_is_told(box: Box, ada: SshSigner) -> None:
    require(box, "head", ada)
    box.repository.signer = ada
    await box.deploy("1.0")
    await box.start()
    who = f"ada@example.org (SSH {ada.fingerprint})"
    app = await box.proven("1.0")
    assert app["current"]["signer"] == who
    assert (await box.status())["source"]["signer"] == who
    box.repository.signer = None
    unsigned = await box.deploy("2.0")
    failure = await refused(box, unsigned, "SignatureMissing")
    assert unsigned[:12] in failure["message"]
    box.repository.signer = ada
    await box.deploy("3.0", push=True)
    await box.proven("3.0")
    assert [run["signer"] for run in await box.history()] == [who, who]
    told = await Operator(box)("status")
    assert f"signed by {who}" in told.out, told


async def test_every_commit_since_the_last_deployed_one_can_be_required_to_be_signed(
    box: Box, ada: SshSigner
) -> None:
    require(box, "every", ada)
    box.repository.signer = ada
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    box.repository.signer = None
    unsigned = await box.deploy("2.0")
    box.repository.signer = ada
    commit = await box.deploy("3.0")
    assert unsigned[:12] in (await refused(box, commit, "SignatureMissing"))["message"]
    await box.repository.git("reset", "-q", "--hard", "HEAD~2")
    await box.deploy("4.0")
    await box.deploy("5.0", push=True)
    await box.proven("5.0")


async def test_a_signed_tag_is_followed_from_release_to_release(box: Box, ada: SshSigner) -> None:
    require(box, "tag", ada)
    box.settings["--ref"] = "stable"
    box.settings["--poll"] = "1s"
    await box.deploy("1.0")
    box.repository.signer = ada
    await box.repository.tag("stable")
    await box.start()
    await box.proven("1.0")
    box.repository.signer = None
    await box.deploy("2.0")
    await box.repository.tag("stable")
    await box.until(lambda: reason_is(box, "SignatureMissing"))
    assert (await box.get())[1] == "1.0\n"
    box.repository.signer = ada
    await box.repository.tag("stable")
    await box.proven("2.0")


async def test_a_commit_is_judged_again_when_the_keys_change(
    box: Box, ada: SshSigner, tmp_path: Path
) -> None:
    bob = SshSigner(tmp_path / "keys" / "bob")
    box.settings = {"--poll": "1s"}
    keys = require(box, "head", ada)
    box.repository.signer = ada
    await box.deploy("1.0")
    await box.start()
    before = await box.proven("1.0")
    keys.write_text(bob.line())
    await box.until(lambda: reason_is(box, "SignatureRefused"))
    keys.write_text(bob.line() + ada.line())
    await box.until(lambda: reason_is(box, "Valid"))
    assert (await box.app())["child"] == before["child"]


async def test_a_push_by_force_is_refused_until_an_operator_accepts_it(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    await box.deploy("2.0", push=True)
    await box.proven("2.0")
    await box.repository.git("reset", "-q", "--hard", "HEAD~1")
    rewritten = await box.deploy("3.0")
    failure = await refused(box, rewritten, "HistoryRewritten")
    assert "--accept-history" in failure["remedy"]
    told = await Operator(box)("sync", "--accept-history")
    assert told.code == 0, told
    await box.proven("3.0")
    await box.deploy("4.0", push=True)
    await box.proven("4.0")


async def test_the_last_deployed_commit_is_remembered_over_a_restart_and_a_lost_journal(box: Box) -> None:
    await box.deploy("1.0")
    await box.start()
    await box.proven("1.0")
    await box.deploy("2.0", push=True)
    await box.proven("2.0")
    await box.repository.git("reset", "-q", "--hard", "HEAD~1")
    await box.deploy("3.0")
    for lose in (False, True):
        await box.stop()
        if lose:
            for path in box.data.glob("journal.db*"):
                path.unlink()
        await box.start()
        await box.until(lambda: reason_is(box, "HistoryRewritten"))
        await box.serving("2.0")


async def reason_is(box: Box, reason: str) -> bool:
    conditions = (await box.status())["conditions"]
    return any(c["type"] == "StateValid" and c["reason"] == reason for c in conditions)
