"""Executables that unpack themselves: what they are told so that each version does it once, into the cache.

| kind | by |
|---|---|
| what keeps to the XDG base directories, pex | XDG_CACHE_HOME |
| shiv, older pex | SHIV_ROOT, PEX_ROOT |
| AppImage, type 2 | APPIMAGE_EXTRACT_AND_RUN, TMPDIR, NO_CLEANUP |
| what unpacks into ~/.cache (nix-bundle) | a link of that name, where HOME is the instance directory |
"""

from __future__ import annotations

import os
from pathlib import Path

LINK = ".cache"
_MAGIC = slice(8, 11)  # in the padding of the ELF header: AppImage specification, "Type 2 image format"


def variables(cache: Path) -> dict[str, Path]:
    """Where executables unpack themselves, if the app has a cache."""
    return {"XDG_CACHE_HOME": cache, "SHIV_ROOT": cache / "shiv", "PEX_ROOT": cache / "pex"}


def of_appimage(program: Path, cache: Path | None) -> dict[str, str]:
    """What an AppImage needs besides; empty for other programs. Blocks for a read of some bytes.

    It would mount itself by FUSE, for which no tier of isolation leaves it the rights. What it unpacks is
    named by its own digest; it would remove it at its end, from under others of the same version.
    """
    try:
        fd = os.open(program, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return {}
    try:
        head = os.read(fd, _MAGIC.stop)
    except OSError:
        return {}
    finally:
        os.close(fd)
    if not head.startswith(b"\x7fELF") or head[_MAGIC] != b"AI\x02":
        return {}
    kept = {} if cache is None else {"TMPDIR": str(cache), "NO_CLEANUP": "1"}
    return {"APPIMAGE_EXTRACT_AND_RUN": "1", **kept}
