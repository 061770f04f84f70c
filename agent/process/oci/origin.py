"""What a release says of the container it is made for: nothing, or what a bundle's config.json does.

A release with a file `config.json` and a directory `rootfs` is a bundle (OCI Runtime Specification,
"Filesystem Bundle"). Of that file arguments, environment, working directory and hostname are taken, and
nothing else: what a program may do is never said by itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.domain.errors import Permanent

FILE, ROOT = "config.json", "rootfs"
SIZE_MAX = 1 << 20
COUNT_MAX = 1000  # arguments, and variables
_OWN = ("EMPTYBOX_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "EINHORN_")  # whose values are ours to give


@dataclass(frozen=True, slots=True)
class Origin:
    """The directory that becomes the root, and what its config.json says ("" and empty: nothing)."""

    root: Path
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    hostname: str = ""


class _Process(msgspec.Struct, frozen=True):
    args: list[str] = []
    env: list[str] = []
    cwd: str = ""


class _Config(msgspec.Struct, frozen=True):
    process: _Process = _Process()
    hostname: str = ""


def origin(release: Path) -> Origin:
    """What a release says. Blocks. Raises Permanent("BundleInvalid"), OSError."""
    path, root = release / FILE, release / ROOT
    if not path.is_file() or root.is_symlink() or not root.is_dir():
        return Origin(release)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        data = file.read(SIZE_MAX + 1)
    if len(data) > SIZE_MAX:
        raise _invalid(f"is larger than {SIZE_MAX} bytes")
    try:
        config = msgspec.json.decode(data, type=_Config)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _invalid(f"is not as the OCI specification has it: {error}") from None
    process = config.process
    texts = [*process.args, *process.env, process.cwd, config.hostname]
    if len(process.args) > COUNT_MAX or len(process.env) > COUNT_MAX or any("\0" in text for text in texts):
        raise _invalid("has more arguments or variables than allowed, or a NUL in one")
    if process.cwd and not process.cwd.startswith("/"):
        raise _invalid("names a working directory that is not absolute")
    pairs = (text.partition("=") for text in process.env)
    env = {name: value for name, _, value in pairs if name and not name.startswith(_OWN)}
    return Origin(root, tuple(process.args), env, process.cwd, config.hostname)


def _invalid(why: str) -> Permanent:
    return Permanent(
        "BundleInvalid", f"the release's {FILE} {why}", where=FILE,
        remedy="mend it, or leave it out and write run.command, env and run.hostname",
    )  # fmt: skip
