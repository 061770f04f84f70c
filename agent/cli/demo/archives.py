"""The sample server (`agent.cli.demo.server`) packed as a user's build would pack it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from agent.cli.demo import server

ROOT = "web"  # the archive's one top-level folder, for `strip: 1`


def archive(version: str, mode: str = "good", extra: Mapping[str, bytes] | None = None) -> bytes:
    """A tar.gz of the sample server that says `version` and behaves as `mode` (see the server's text).

    Args:
        version: what it answers.
        mode: how it behaves.
        extra: further files, by path.
    """
    files = {
        "bin/web": (Path(server.__file__).read_bytes(), 0o755),
        "bin/VERSION": (f"{version} {mode}\n".encode(), 0o644),
        **{name: (data, 0o644) for name, data in (extra or {}).items()},
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, (data, mode_bits) in files.items():
            info = tarfile.TarInfo(f"{ROOT}/{name}")
            info.size, info.mode = len(data), mode_bits
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
