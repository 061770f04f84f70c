"""Commits and tags signed by real git, judged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.domain.errors import OperatorNeeded
from agent.kit.signatures import openpgp
from agent.source.git.remote import GitRemote
from agent.source.trust.policy import Mode, Trust
from tests.kit.git_server import Forge, Repository
from tests.kit.signing import GpgSigner, SshSigner, gpg_signer


@pytest.fixture(params=["sha1", "sha256"])
async def state(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Repository]:
    async with Forge(tmp_path / "forge") as forge:
        yield await forge.repository(object_format=request.param)


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory) -> SshSigner:
    return SshSigner(tmp_path_factory.mktemp("keys") / "ada")


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpgSigner]:
    with gpg_signer(tmp_path_factory.mktemp("gpg")) as signer:
        yield signer


def trusting(tmp_path: Path, *lines: str, keys: bytes | None = None, mode: Mode = Mode.HEAD) -> Trust:
    ssh, ring = tmp_path / "signers", tmp_path / "keys.asc"
    ssh.write_text("".join(lines))
    if keys is not None:
        ring.write_bytes(keys)
    return Trust(mode, ssh if lines else None, ring if keys is not None else None)


async def judged(trust: Trust, state: Repository, *commits: str) -> str:
    async with GitRemote(f"file://{state.path}") as remote:
        with await remote.fetch(commits[0]) as snapshot:
            contents = [(commit, snapshot.raw(commit)) for commit in commits]
            return trust.commits(contents, snapshot.object_format)


async def refused(trust: Trust, state: Repository, *commits: str) -> OperatorNeeded:
    with pytest.raises(OperatorNeeded) as caught:
        await judged(trust, state, *commits)
    return caught.value


async def test_a_commit_signed_by_ssh_names_its_signer(
    state: Repository, ada: SshSigner, tmp_path: Path
) -> None:
    state.signer = ada
    commit = await state.put({"a": "1"}, "words\n\nand more\n\n gpgsig looks like this\n")
    signer = await judged(trusting(tmp_path, ada.line()), state, commit)
    assert signer == f"ada@example.org (SSH {ada.fingerprint})"


async def test_a_commit_signed_by_openpgp_names_its_signer(
    state: Repository, gpg: GpgSigner, tmp_path: Path
) -> None:
    state.signer = gpg
    commit = await state.put({"a": "1"})
    signer = await judged(trusting(tmp_path, keys=gpg.public()), state, commit)
    assert signer == f"Ada <ada@example.org> (OpenPGP {gpg.fingerprint})"


async def test_both_kinds_of_keys_may_be_trusted_at_once(
    state: Repository, gpg: GpgSigner, ada: SshSigner, tmp_path: Path
) -> None:
    trust = trusting(tmp_path, ada.line(), keys=gpg.public())
    commits = []
    for signer in (gpg, ada):
        state.signer = signer
        commits.append(await state.put())
    await judged(trust, state, *reversed(commits))


async def test_an_unsigned_commit_among_signed_ones_is_named(
    state: Repository, ada: SshSigner, tmp_path: Path
) -> None:
    plain = await state.put({"a": "1"})
    state.signer = ada
    signed = await state.put({"a": "2"})
    refusal = await refused(trusting(tmp_path, ada.line()), state, signed, plain)
    assert refusal.reason == "SignatureMissing"
    assert plain[:12] in str(refusal)


async def test_a_key_nobody_trusts_is_refused_and_named(
    state: Repository, ada: SshSigner, gpg: GpgSigner, tmp_path: Path
) -> None:
    state.signer = ada
    commit = await state.put({"a": "1"})
    refusal = await refused(trusting(tmp_path, SshSigner(tmp_path / "bob").line()), state, commit)
    assert refusal.reason == "SignatureRefused"
    assert ada.fingerprint in str(refusal)
    assert "--ssh-signers" in str(await refused(trusting(tmp_path, keys=gpg.public()), state, commit))
    state.signer = gpg
    commit = await state.put({"a": "2"})
    with gpg_signer(tmp_path / "other", "Bob <bob@example.org>") as bob:
        refusal = await refused(trusting(tmp_path, keys=bob.public()), state, commit)
    assert gpg.fingerprint in str(refusal)
    assert "--openpgp-keys" in str(await refused(trusting(tmp_path, ada.line()), state, commit))


async def test_a_commit_changed_after_it_was_signed_is_refused(
    state: Repository, ada: SshSigner, gpg: GpgSigner, tmp_path: Path
) -> None:
    trust = trusting(tmp_path, ada.line(), keys=gpg.public())
    for signer in (ada, gpg):
        state.signer = signer
        commit = await state.put({"a": signer.flags[1]}, "one thousand")
        async with GitRemote(f"file://{state.path}") as remote:
            with await remote.fetch(commit) as snapshot:
                changed = snapshot.raw(commit).replace(b"one thousand", b"two thousand")
                with pytest.raises(OperatorNeeded) as caught:
                    trust.commits([(commit, changed)], snapshot.object_format)
        assert caught.value.reason == "SignatureRefused"
        assert "wrong" in str(caught.value)


async def test_a_revoked_openpgp_key_does_not_count(state: Repository, tmp_path: Path) -> None:
    with gpg_signer(tmp_path / "revoked") as gpg:
        state.signer = gpg
        commit = await state.put({"a": "1"})
        await judged(trusting(tmp_path, keys=gpg.public()), state, commit)
        home = gpg.gpg("--version").decode().partition("Home: ")[2].split("\n")[0]
        certificate = Path(home) / "openpgp-revocs.d" / f"{gpg.fingerprint}.rev"
        text = certificate.read_text().replace(":-----BEGIN", "-----BEGIN")
        (tmp_path / "revocation").write_text(text)
        gpg.gpg("--batch", "-q", "--import", str(tmp_path / "revocation"))
        assert (
            await refused(trusting(tmp_path, keys=gpg.public()), state, commit)
        ).reason == "SignatureRefused"


# --- tags -----------------------------------------------------------------------------------------


async def tag_judged(trust: Trust, state: Repository, name: str, ref: str = "") -> str:
    async with GitRemote(state.url) as remote:
        with await remote.resolve(ref or f"refs/tags/{name}", None, tag=True) as snapshot:
            content = snapshot.raw(snapshot.tag) if snapshot.tag else None
            return trust.tag(content, name, snapshot.commit)


@pytest.mark.parametrize("kind", ["ssh", "openpgp"])
async def test_a_signed_tag_vouches_for_a_commit_that_is_not_signed(
    state: Repository, ada: SshSigner, gpg: GpgSigner, tmp_path: Path, kind: str
) -> None:
    await state.put({"a": "1"})
    state.signer = ada if kind == "ssh" else gpg
    await state.tag("v1")
    trust = trusting(tmp_path, ada.line(), keys=gpg.public(), mode=Mode.TAG)
    assert "ada@example.org" in await tag_judged(trust, state, "v1")


async def test_a_tag_signed_under_another_name_is_refused(
    state: Repository, ada: SshSigner, tmp_path: Path
) -> None:
    await state.put({"a": "1"})
    state.signer = ada
    await state.tag("v1")
    await state.git("update-ref", "refs/tags/v2", await state.git("rev-parse", "refs/tags/v1"))
    await state.publish("refs/tags/v2")
    trust = trusting(tmp_path, ada.line(), mode=Mode.TAG)
    with pytest.raises(OperatorNeeded, match="under the name 'v1'"):
        await tag_judged(trust, state, "v2")


async def test_tags_that_are_not_signed_or_not_annotated_are_refused(
    state: Repository, ada: SshSigner, tmp_path: Path
) -> None:
    await state.put({"a": "1"})
    await state.tag("plain")
    await state.git("tag", "light")
    await state.publish("refs/tags/light")
    trust = trusting(tmp_path, ada.line(), mode=Mode.TAG)
    for name, words in (("plain", "not signed"), ("light", "not an annotated tag")):
        with pytest.raises(OperatorNeeded, match=words) as caught:
            await tag_judged(trust, state, name)
        assert caught.value.reason == "SignatureMissing"


# --- the files of keys ------------------------------------------------------------------------------


async def test_keys_are_read_again_for_each_judgement(
    state: Repository, ada: SshSigner, tmp_path: Path
) -> None:
    state.signer = ada
    commit = await state.put({"a": "1"})
    trust = trusting(tmp_path, ada.line())
    await judged(trust, state, commit)
    before = trust.version()
    (tmp_path / "signers").write_text("# nobody\n")
    assert trust.version() != before
    assert (await refused(trust, state, commit)).reason == "SignatureRefused"
    (tmp_path / "signers").write_text("nonsense\n")
    assert (await refused(trust, state, commit)).reason == "SignersUnusable"
    (tmp_path / "signers").unlink()
    assert (await refused(trust, state, commit)).reason == "SignersUnusable"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n"])
def test_a_keyring_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(OperatorNeeded) as caught:
        trusting(tmp_path, keys=content).keys()
    assert caught.value.reason == "SignersUnusable"


def test_openpgp_without_its_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openpgp, "is_there", lambda: False)
    with pytest.raises(OperatorNeeded, match=r"emptybox\[openpgp\]"):
        trusting(tmp_path, keys=b"x").keys()
