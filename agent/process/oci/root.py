"""A container's root: layers below an overlayfs of its own, or a copy of them. All of it blocks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agent.process.oci import bundle

COPY_MAX = 600.0  # seconds


def overlay(place: Path, layers: Sequence[Path], *, rootless: bool) -> str:
    """Have ready what the root is mounted from; returns the options, with paths relative to `place`.

    Raises OSError.
    """
    for number, layer in enumerate(layers):
        os.symlink(layer, place / f"layer{number}")
    for name in (bundle.ROOT, "work"):
        (place / name).mkdir(mode=0o755)
    _make_upper(place / "upper")
    lower = ":".join(f"layer{number}" for number in range(len(layers)))
    own = ",userxattr" if rootless else ""  # who is not root may keep no notes in trusted attributes
    return f"lowerdir={lower},upperdir=upper,workdir=work{own}"


def copy(place: Path, layers: Sequence[Path]) -> None:
    """Make the root a copy of all layers, the lowest first. Raises OSError."""
    root = place / bundle.ROOT
    _make_upper(root)
    for layer in reversed(layers):
        try:
            subprocess.run(
                ["cp", "-a", f"{os.path.realpath(layer)}/.", str(root)],
                check=True, timeout=COPY_MAX, stdin=subprocess.DEVNULL, capture_output=True,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            raise OSError(0, f"the release cannot be copied: {error}", str(root)) from None
    root.chmod(0o755)


def _make_upper(path: Path) -> None:
    """What a root has besides its layers: programs expect a /tmp."""
    path.mkdir(mode=0o755)
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o1777)
