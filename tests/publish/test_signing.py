"""What is packed or published is signed so that the real minisign and ssh-keygen find it right."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.artifact.artifacts import Artifacts
from agent.artifact.store import Store
from agent.cli.exit_codes import FAILED, OK
from agent.domain.artifact_spec import SignatureSpec
from tests.artifact.specs import spec
from tests.cli.stage import run_here
from tests.kit.registry import need
from tests.publish.conftest import Ci

PASSWORD = "a-password-of-tests"


def run(*words: object, said: bytes = b"") -> None:
    done = subprocess.run([str(word) for word in words], input=said, capture_output=True, timeout=60)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.fixture
def minisign(tmp_path: Path) -> Path:
    """A key without a password; its public half is beside it as key.pub."""
    need("minisign")
    run("minisign", "-G", "-W", "-p", tmp_path / "key.pub", "-s", tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def ssh(tmp_path: Path) -> Path:
    """A key with PASSWORD."""
    need("ssh-keygen")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", PASSWORD, "-f", tmp_path / "ssh-key")
    return tmp_path / "ssh-key"


async def test_minisign_finds_a_published_directory_right(
    ci: Ci, tree: Path, tmp_path: Path, minisign: Path
) -> None:
    words = (
        tree,
        "--to",
        f"{tmp_path}/releases/",
        "--app",
        "web",
        "--version",
        "1.0",
        "--sign-key",
        minisign,
    )
    await ci.told(*words)
    archive = tmp_path / "releases/web-1.0.tar"
    run("minisign", "-Vm", archive, "-p", tmp_path / "key.pub")
    signature = archive.with_name("web-1.0.tar.minisig").read_bytes()
    assert b"trusted comment: file:web-1.0.tar\thashed\n" in signature
    key = SignatureSpec(kind="minisign", keys=(tmp_path / "key.pub").read_text().splitlines()[-1])
    wanted = replace(spec(archive.as_uri(), archive.read_bytes()), signature=key)
    async with Artifacts(Store(tmp_path / "store"), file_roots=[tmp_path]) as artifacts:
        async with artifacts.deliver(wanted, "web") as delivery:
            assert (await delivery.published() / "bin/web").exists()
    assert (await ci.told(*words))["sent"] == 0
    assert archive.with_name("web-1.0.tar.minisig").read_bytes() == signature


def test_ssh_keygen_finds_a_packed_directory_right(tree: Path, tmp_path: Path, ssh: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    archive = tmp_path / "web.tar"
    answer = run_here(
        "pack", str(tree), "-o", str(archive), "--sign-key", str(ssh),
        "--sign-password-file", str(tmp_path / "password"),
    )  # fmt: skip
    assert answer.code == OK, answer.err
    signers = tmp_path / "signers"
    signers.write_text(f"ada {ssh.with_suffix('.pub').read_text()}")
    run(
        "ssh-keygen", "-Y", "verify", "-f", signers, "-I", "ada", "-n", "file",
        "-s", tmp_path / "web.tar.sig", said=archive.read_bytes(),
    )  # fmt: skip


async def test_a_key_or_password_of_no_use_stops_all_and_is_not_shown(
    ci: Ci, tree: Path, tmp_path: Path, ssh: Path
) -> None:
    (tmp_path / "password").write_text("a-wrong-password\n")
    (tmp_path / "no-key").write_text("a-secret-that-is-no-key\n")
    for more in (["--sign-key", ssh, "--sign-password-file", tmp_path / "password"],
                 ["--sign-key", ssh], ["--sign-key", tmp_path / "no-key"]):  # fmt: skip
        answer = await ci.publish(tree, "--to", f"{tmp_path}/releases/", *more)
        assert answer.code == FAILED
        assert str(more[1]) in answer.err
        assert "a-wrong" not in answer.err
        assert "a-secret" not in answer.err
        assert not (tmp_path / "releases").exists()


async def test_an_image_is_not_signed_this_way(ci: Ci, tree: Path, ssh: Path) -> None:
    answer = await ci.publish(tree, "--to", "oci://registry.example/web:1", "--sign-key", ssh)
    assert answer.code == FAILED
    assert "cosign" in answer.err
