"""Signatures by the real minisign, ssh-keygen and gpg, from a real nginx; cosign's by their formats."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.artifact.trust.rules import Rules
from agent.domain.artifact_spec import ArtifactSpec, Checksum, SignatureSpec
from agent.domain.errors import Failure, OperatorNeeded, Permanent
from tests.artifact.specs import release, spec
from tests.kit.artifact_server import ArtifactServer
from tests.kit.cosigning import CosignKey
from tests.kit.signing import GpgSigner, MinisignSigner, SshSigner, gpg_signer

DATA, OTHER = release(b"1.0"), release(b"2.0")


@dataclass(frozen=True)
class Maker:
    """One format: its keys as the state names them, and how files are signed."""

    kind: str
    keys: str
    suffix: str
    sign: Callable[[bytes], bytes]


@pytest.fixture(
    scope="module", params=["minisign", "ssh", "cosign", "cosign bundle", "openpgp", "openpgp binary"]
)
def maker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    base = tmp_path_factory.mktemp("maker")
    kind = str(request.param)
    if kind == "minisign":
        mini = MinisignSigner(base)
        return Maker(kind, mini.text, ".minisig", mini.sign)
    if kind == "ssh":
        ssh = SshSigner(base / "ada")
        return Maker(kind, ssh.line(), ".sig", lambda data: ssh.sign(data, "file"))
    if kind.startswith("cosign"):
        key = CosignKey()
        return Maker("cosign", key.public, ".sig", key.bundle if "bundle" in kind else key.sign)
    signer = request.getfixturevalue("gpg")
    how = [] if "binary" in kind else ["--armor"]
    return Maker(
        "openpgp",
        signer.public().decode(),
        ".sig" if "binary" in kind else ".asc",
        lambda d: signer.sign(d, *how),
    )


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpgSigner]:
    with gpg_signer(tmp_path_factory.mktemp("gpg")) as signer:
        yield signer


def signed(url: str, data: bytes = DATA, /, **signature: str) -> ArtifactSpec:
    return msgspec.structs.replace(spec(url, data), signature=SignatureSpec(**signature))


async def deliver(artifacts: Artifacts, wanted: ArtifactSpec) -> Path:
    async with artifacts.deliver(await artifacts.pin(wanted), "web") as delivery:
        await delivery.verified()
        return await delivery.published()


async def refused(artifacts: Artifacts, wanted: ArtifactSpec) -> Failure:
    """Why it is not deployed; nothing of it is in the store."""
    async with artifacts.deliver(wanted, "web") as delivery:
        with pytest.raises(Failure) as caught:
            await delivery.published()
        assert not artifacts.store.has(delivery.release)
    return caught.value


async def test_what_its_key_signed_is_delivered_and_who_signed_is_known(
    artifacts: Artifacts, server: ArtifactServer, maker: Maker
) -> None:
    server.put("web.tar.gz" + maker.suffix, maker.sign(DATA))
    wanted = signed(server.put("web.tar.gz", DATA), kind=maker.kind, keys=maker.keys)
    tree = await deliver(artifacts, wanted)
    assert (tree / "bin/web").read_bytes() == b"1.0"
    names = {
        "minisign": "minisign ",
        "ssh": "(SSH SHA256:",
        "cosign": "cosign SHA256:",
        "openpgp": "(OpenPGP ",
    }
    assert names[maker.kind] in artifacts.signatures.signers(wanted)
    assert artifacts.ready(wanted, tree.name)


async def test_the_signature_of_another_file_is_refused(
    artifacts: Artifacts, server: ArtifactServer, maker: Maker
) -> None:
    server.put("web.tar.gz" + maker.suffix, maker.sign(OTHER))
    wanted = signed(server.put("web.tar.gz", DATA), kind=maker.kind, keys=maker.keys)
    failure = await refused(artifacts, wanted)
    assert isinstance(failure, Permanent)
    assert failure.reason == "ArtifactSignatureRefused"
    assert failure.info.remedy


async def test_without_a_signature_nothing_of_the_artifact_is_fetched(
    artifacts: Artifacts, server: ArtifactServer, maker: Maker
) -> None:
    wanted = signed(server.put("web.tar.gz", DATA), kind=maker.kind, keys=maker.keys)
    failure = await refused(artifacts, wanted)
    assert failure.reason == "ArtifactUnsigned"
    assert "web.tar.gz" in str(failure) and maker.kind in str(failure)
    asked = [request.path for request in await server.requests(1)]
    assert "/web.tar.gz" not in asked


async def test_a_right_signature_does_not_make_up_for_a_wrong_digest(
    artifacts: Artifacts, server: ArtifactServer, maker: Maker
) -> None:
    server.put("web.tar.gz" + maker.suffix, maker.sign(OTHER))
    wanted = signed(server.put("web.tar.gz", OTHER), DATA, kind=maker.kind, keys=maker.keys)
    assert (await refused(artifacts, wanted)).reason == "ChecksumMismatch"


@pytest.mark.parametrize("where", ["url", "text"])
async def test_a_signature_may_lie_elsewhere_or_stand_in_the_state(
    artifacts: Artifacts, server: ArtifactServer, mini: MinisignSigner, where: str
) -> None:
    made = mini.sign(DATA)
    place = {"url": server.put("elsewhere/sig", made)} if where == "url" else {"text": made.decode()}
    wanted = signed(server.put("web.tar.gz", DATA), kind="minisign", keys=mini.text, **place)
    await deliver(artifacts, wanted)


async def test_a_stranger_s_signature_names_the_stranger_s_key(
    artifacts: Artifacts, server: ArtifactServer, mini: MinisignSigner, stranger: MinisignSigner
) -> None:
    server.put("web.tar.gz.minisig", stranger.sign(DATA))
    failure = await refused(
        artifacts, signed(server.put("web.tar.gz", DATA), kind="minisign", keys=mini.text)
    )
    number = stranger.public.read_text().splitlines()[0].split()[-1]
    assert number in str(failure)


async def test_one_of_several_keys_is_enough(
    artifacts: Artifacts, server: ArtifactServer, mini: MinisignSigner, stranger: MinisignSigner
) -> None:
    server.put("web.tar.gz.minisig", mini.sign(DATA))
    keys = f"{stranger.text}\n{mini.text}"
    await deliver(artifacts, signed(server.put("web.tar.gz", DATA), kind="minisign", keys=keys))


async def test_a_signature_in_another_format_does_not_count(
    artifacts: Artifacts, server: ArtifactServer, mini: MinisignSigner, tmp_path: Path
) -> None:
    server.put("web.tar.gz.minisig", SshSigner(tmp_path / "ada").sign(DATA, "file"))
    failure = await refused(
        artifacts, signed(server.put("web.tar.gz", DATA), kind="minisign", keys=mini.text)
    )
    assert "a signature of SSH, and no such key is trusted" in str(failure)


async def test_an_ssh_signature_made_for_git_does_not_count_for_a_file(
    artifacts: Artifacts, server: ArtifactServer, tmp_path: Path
) -> None:
    ada = SshSigner(tmp_path / "ada")
    server.put("web.tar.gz.sig", ada.sign(DATA, "git"))
    failure = await refused(artifacts, signed(server.put("web.tar.gz", DATA), kind="ssh", keys=ada.line()))
    assert "namespace" in str(failure)


async def test_an_openpgp_signature_in_text_mode_is_refused(
    artifacts: Artifacts,
    server: ArtifactServer,
    gpg: GpgSigner,
) -> None:
    server.put("web.tar.gz.asc", gpg.sign(DATA, "--armor", "--textmode"))
    wanted = signed(server.put("web.tar.gz", DATA), kind="openpgp", keys=gpg.public().decode())
    assert "bytes" in str(await refused(artifacts, wanted))


async def test_a_huge_signature_file_is_not_read(
    artifacts: Artifacts, server: ArtifactServer, mini: MinisignSigner
) -> None:
    server.put("web.tar.gz.minisig", mini.sign(DATA) + b"x" * 100_000)
    wanted = signed(server.put("web.tar.gz", DATA), kind="minisign", keys=mini.text)
    assert (await refused(artifacts, wanted)).reason == "ArtifactTooLarge"


async def test_what_is_in_the_store_unsigned_is_fetched_again_once_a_signature_is_asked_for(
    artifacts: Artifacts, server: ArtifactServer, mini: MinisignSigner
) -> None:
    url = server.put("web.tar.gz", DATA)
    tree = await deliver(artifacts, spec(url, DATA))
    wanted = signed(url, kind="minisign", keys=mini.text)
    assert not artifacts.ready(wanted, tree.name)
    async with artifacts.deliver(wanted, "web") as delivery:
        with pytest.raises(Permanent, match="asks for a signature"):
            await delivery.published()
    server.put("web.tar.gz.minisig", mini.sign(DATA))
    assert await deliver(artifacts, wanted) == tree
    assert artifacts.ready(wanted, tree.name)
    before = len(await server.requests(1))
    assert await deliver(artifacts, wanted) == tree
    assert len(await server.requests(1)) == before


async def test_who_signed_is_forgotten_with_the_release(
    artifacts: Artifacts, server: ArtifactServer, mini: MinisignSigner
) -> None:
    server.put("web.tar.gz.minisig", mini.sign(DATA))
    tree = await deliver(artifacts, signed(server.put("web.tar.gz", DATA), kind="minisign", keys=mini.text))
    assert list(artifacts.store.signed.iterdir())
    await artifacts.store.collect({tree.name})
    assert list(artifacts.store.signed.iterdir())
    await artifacts.store.collect(set())
    assert not list(artifacts.store.signed.iterdir())


async def test_the_settings_ask_for_signatures_of_what_the_state_says_nothing_about(
    store: Store, server: ArtifactServer, mini: MinisignSigner, keys: Path
) -> None:
    async with Artifacts(store, rules=Rules([("*", keys)])) as artifacts:
        url = server.put("web.tar.gz", DATA)
        failure = await refused(artifacts, spec(url, DATA))
        assert failure.reason == "ArtifactUnsigned"
        assert "--require-signature *" in str(failure)
        server.put("web.tar.gz.minisig", mini.sign(DATA))
        await deliver(artifacts, spec(url, DATA))


async def test_the_state_s_own_key_does_not_stand_in_for_the_settings_key(
    store: Store, server: ArtifactServer, stranger: MinisignSigner, keys: Path
) -> None:
    async with Artifacts(store, rules=Rules([("127.0.0.1", keys)])) as artifacts:
        server.put("web.tar.gz.minisig", stranger.sign(DATA))
        url = server.put("web.tar.gz", DATA)
        failure = await refused(artifacts, signed(url, kind="minisign", keys=stranger.text))
        assert failure.reason == "ArtifactSignatureRefused"
        assert "--require-signature 127.0.0.1" in str(failure)


async def test_a_mirror_does_not_lead_around_a_rule(
    store: Store, server: ArtifactServer, keys: Path, tmp_path: Path
) -> None:
    (tmp_path / "web.tar.gz").write_bytes(DATA)
    file = (tmp_path / "gone.tar.gz").as_uri()
    rules = Rules([("*", keys), ("file:///", None)])
    async with Artifacts(store, rules=rules, file_roots=[tmp_path]) as artifacts:
        wanted = msgspec.structs.replace(spec(file, DATA), mirrors=(server.put("web.tar.gz", DATA),))
        assert (await refused(artifacts, wanted)).reason == "ArtifactUnsigned"


async def test_a_key_that_is_taken_away_counts_no_more_and_a_new_one_costs_no_download(
    store: Store, server: ArtifactServer, mini: MinisignSigner, stranger: MinisignSigner, keys: Path
) -> None:
    async with Artifacts(store, rules=Rules([("*", keys)])) as artifacts:
        server.put("web.tar.gz.minisig", mini.sign(DATA))
        wanted = spec(server.put("web.tar.gz", DATA), DATA)
        tree = await deliver(artifacts, wanted)
        keys.write_text(f"{stranger.text}\n{mini.text}\n")
        assert artifacts.ready(wanted, tree.name)
        keys.write_text(f"{stranger.text}\n")
        assert not artifacts.ready(wanted, tree.name)
        async with artifacts.deliver(wanted, "web") as delivery:
            with pytest.raises(Permanent, match="none of the keys"):
                await delivery.published()


async def test_a_file_of_keys_that_cannot_be_read_holds_up_what_it_is_for_and_nothing_else(
    store: Store, server: ArtifactServer, keys: Path, tmp_path: Path
) -> None:
    keys.write_text("RWbroken")
    rules = Rules([("127.0.0.1", keys), ("file:///", None)])
    async with Artifacts(store, rules=rules, file_roots=[tmp_path]) as artifacts:
        failure = await refused(artifacts, spec(server.put("web.tar.gz", DATA), DATA))
        assert isinstance(failure, OperatorNeeded)
        assert failure.reason == "SignersUnusable"
        assert failure.info.where == str(keys)
        (tmp_path / "web.tar.gz").write_bytes(DATA)
        await deliver(artifacts, spec((tmp_path / "web.tar.gz").as_uri(), DATA))


async def test_an_artifact_of_sha512_and_of_no_known_digest_are_judged_alike(
    artifacts: Artifacts, server: ArtifactServer, maker: Maker
) -> None:
    server.put("web.tar.gz" + maker.suffix, maker.sign(DATA))
    wanted = signed(server.put("web.tar.gz", DATA), kind=maker.kind, keys=maker.keys)
    for checksum in (
        Checksum(algorithm="sha512", hex=hashlib.sha512(DATA).hexdigest()),
        Checksum(algorithm="md5", hex=hashlib.md5(DATA).hexdigest()),
        Checksum(algorithm="sha256"),
    ):
        pinned = await artifacts.pin(msgspec.structs.replace(wanted, checksum=checksum))
        await deliver(artifacts, pinned)
        assert artifacts.signatures.signers(pinned)
