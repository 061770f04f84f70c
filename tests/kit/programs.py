"""Small programs as artifacts: plain shell scripts, and what can be asked of a run that is over."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from tests.kit.box import Box


def plain(box: Box, name: str, text: str, algorithm: str = "sha256") -> dict[str, Any]:
    """Put a script where the agent can fetch it; the `artifact` that is one plain file."""
    path = box.artifacts / name
    path.write_text(text)
    digest = hashlib.new(algorithm, text.encode()).hexdigest()
    return {"url": path.as_uri(), "checksum": f"{algorithm}:{digest}"}


def left_behind(box: Box) -> list[str]:
    """Command lines of processes that carry the box's mark in their environment."""
    mark = f"EMPTYBOX_BOX={(box.data / 'box').read_text().split()[0]}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            if mark in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended meanwhile, or is not ours to look into
    return found
