"""What the doctor finds on a machine that something is wrong with."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.config import Settings
from agent.doctor import access, machine
from agent.doctor.examine import examine
from agent.doctor.findings import Finding, Verdict
from agent.doctor.kernel import kernel
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.errors import Permanent


def artifact(url: str) -> ArtifactSpec:
    return ArtifactSpec(url=url, checksum=Checksum(algorithm="sha256"))


def found(settings: Settings, subject: str) -> Finding:
    return next(finding for finding in machine.machine(settings) if finding.subject == subject)


def test_every_finding_about_the_kernel_has_a_verdict_and_something_to_say() -> None:
    findings = list(kernel())
    subjects = [finding.subject for finding in findings]
    assert {"kernel", "seccomp", "landlock", "cgroups", "memfd", "pidfd", "somaxconn"} <= set(subjects)
    assert all(finding.told for finding in findings)


@pytest.mark.parametrize(
    ("content", "mode", "verdict"),
    [
        (None, 0, Verdict.BAD),
        (b"", 0o600, Verdict.BAD),
        (b"secret", 0o644, Verdict.WARN),
        (b"secret", 0o600, Verdict.OK),
    ],
)
def test_a_secret_file_is_looked_at_and_never_shown(
    tmp_path: Path, content: bytes | None, mode: int, verdict: Verdict
) -> None:
    file = tmp_path / "webhook"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    finding = found(Settings(data=tmp_path, webhook_secret_file=file), "webhook secret")
    assert finding.verdict is verdict
    assert "secret" not in finding.told.replace(str(file), "")


def test_a_full_disk_and_a_disk_without_inodes_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)

    def nearly_full(_path: object) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, real.f_blocks, 9000, 9000, 1_000_000, 500, 500, 0, 255))

    monkeypatch.setattr(os, "statvfs", nearly_full)
    assert found(Settings(data=tmp_path), "disk").verdict is Verdict.BAD
    inodes = found(Settings(data=tmp_path), "inodes")
    assert (inodes.verdict, inodes.told) == (Verdict.BAD, "500 free")
    assert "remove files" in inodes.remedy


def test_a_data_directory_that_is_not_there_yet_can_be_made(tmp_path: Path) -> None:
    finding = found(Settings(data=tmp_path / "a/b/c"), "data directory")
    assert (finding.verdict, "can be made" in finding.told) == (Verdict.OK, True)


def test_users_and_roots_that_do_not_exist_are_named(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, users=("nobody-of-that-name",), file_roots=(tmp_path / "missing",))
    assert "nobody-of-that-name" in found(settings, "user").told
    assert found(settings, "file root").verdict is Verdict.BAD


def test_a_clock_before_its_time_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.doctor.machine.time.time", lambda: 1_000_000_000.0)
    assert found(Settings(data=tmp_path), "clock").verdict is Verdict.BAD


async def test_artifacts_are_tried_side_by_side_and_failures_keep_their_remedy() -> None:
    met = asyncio.Barrier(2)

    async def reach(spec: ArtifactSpec) -> int | None:
        async with asyncio.timeout(10):
            await met.wait()
        if spec.url == "https://b":
            raise Permanent("ArtifactNotFound", "there is none", where=spec.url, remedy="upload it")
        return 3 << 20

    good, bad = await access.artifacts({"a": artifact("https://a"), "b": artifact("https://b")}, reach)
    assert (good.verdict, good.told) == (Verdict.OK, "can be fetched, 3.0 MiB")
    assert (bad.verdict, bad.remedy) == (Verdict.BAD, "upload it")


async def test_without_a_repository_that_is_what_is_said(tmp_path: Path) -> None:
    report = await examine(Settings(data=tmp_path))
    (git,) = [finding for finding in report["findings"] if finding["subject"] == "git"]
    assert git["verdict"] == "unknown"
    assert "--repo" in git["remedy"]


async def test_keys_that_artifacts_must_be_signed_with_are_looked_at(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n")
    bad.write_text("RWQf6L\n")
    settings = Settings(data=tmp_path, signature_rules=(("*", good), ("releases.example", bad)))
    told = {finding["subject"]: finding for finding in (await examine(settings))["findings"]}
    assert told[f"keys {good}"]["verdict"] == Verdict.OK
    assert told[f"keys {bad}"]["verdict"] == Verdict.BAD
    assert "no public key of minisign" in told[f"keys {bad}"]["told"]
