from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.signing import MinisignSigner


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> MinisignSigner:
    return MinisignSigner(tmp_path_factory.mktemp("minisign"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> MinisignSigner:
    """Somebody nobody trusts."""
    return MinisignSigner(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def keys(tmp_path: Path, mini: MinisignSigner) -> Path:
    """A file of trusted keys: mini's."""
    path = tmp_path / "release.pub"
    path.write_text(mini.public.read_text())
    return path
