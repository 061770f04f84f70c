"""Signatures by sigstore's own libraries, see sigstore.cjs. No package has cosign itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.registry import run

SIGNATURE = "https://sigstore.dev/cosign/sign/v1"  # the type of statement that is one
_MODULES = Path(__file__).parents[2] / ".ci/npm/node_modules"


@dataclass(frozen=True)
class Signed:
    """By one new key (PEM): a file's signature in base64, and as a bundle."""

    public: str
    signature: bytes
    bundle: bytes


async def sign(file: Path, images: Sequence[tuple[str, str, str]] = ()) -> Signed:
    """Sign a file, and of each image (HOST/NAME, digest) a statement of a type, attached in its registry.

    Skips where the libraries are not installed, but fails in CI.
    """
    node = shutil.which("node")
    if node is None or not (_MODULES / "@sigstore/sign").exists():
        if os.environ.get("CI") and shutil.which("npm"):
            pytest.fail("CI must have @sigstore/sign: .ci/run installs it")
        pytest.skip("@sigstore/sign is missing: npm ci --prefix .ci/npm --ignore-scripts")
    asked = json.dumps({"file": str(file), "images": images})
    script = Path(__file__).with_suffix(".cjs")
    said = json.loads(await run("env", f"NODE_PATH={_MODULES}", node, str(script), asked))
    return Signed(said["public"], said["signature"].encode(), json.dumps(said["bundle"]).encode())
