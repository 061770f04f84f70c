"""A directory of SQL files in Flyway's layout.

| name | |
|---|---|
| V1__initial_schema.sql, V1.1__x.sql, V20250131_2__x.sql | runs once, in the order of versions |
| R__views.sql | repeatable: runs after those whenever it has changed, in the order of names |
| U1__initial_schema.sql | takes V1 back |
| V7__index.sql.conf | `executeInTransaction=false`: V7 runs without a transaction, a statement at a time |

Subdirectories are looked into. Other files ending in .sql are refused, so that nothing is skipped.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from agent.migrator.problems import PERMANENT, Problem

FILES_MAX = 10_000
FILE_MAX = 16 << 20  # bytes
DEPTH_MAX = 8
DIRECTORIES_MAX = 1000
_VERSIONED = re.compile(r"([VU])([0-9]{1,20}(?:[._][0-9]{1,20}){0,8})__(.{1,200})\.sql")
_REPEATABLE = re.compile(r"R__(.{1,200})\.sql")

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SqlFile:
    """One file. `version` is () for a repeatable one; `whole` says that it is one transaction."""

    script: str  # its name
    path: Path
    version: Version
    checksum: str  # sha256 over the text, line ends taken alike
    whole: bool

    def text(self) -> str:
        """What it says. Raises Problem."""
        return _read(self.path).decode("utf-8")


@dataclass(frozen=True, slots=True)
class Directory:
    """What a directory holds, in the order in which it runs."""

    versioned: tuple[SqlFile, ...]
    repeatable: tuple[SqlFile, ...]
    undo: dict[Version, SqlFile]


def parse_version(text: str) -> Version:
    """1.10 and 1_10 are (1, 10); trailing zeros say nothing: 2.0 is 2."""
    parts = [int(part) for part in re.split("[._]", text)]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def shown(version: Version) -> str:
    """As it is stored and told: 1.10."""
    return ".".join(map(str, version))


def read_directory(path: Path) -> Directory:
    """Read and hash everything. Raises Problem."""
    versioned: dict[Version, SqlFile] = {}
    undo: dict[Version, SqlFile] = {}
    repeatable: dict[str, SqlFile] = {}
    for file in _files(path):
        name = file.name
        if match := _VERSIONED.fullmatch(name):
            kind, version = match[1], parse_version(match[2])
            known = versioned if kind == "V" else undo
            if version in known:
                raise _refused(f"{known[version].script} and {name} have one version")
            known[version] = _sql_file(file, version)
        elif _REPEATABLE.fullmatch(name):
            if name in repeatable:
                raise _refused(f"there are two of {name}")
            repeatable[name] = _sql_file(file, ())
        elif name.endswith(".sql"):
            raise _refused(f"{name} is named neither V1__what.sql nor R__what.sql nor U1__what.sql")
    ordered = tuple(versioned[version] for version in sorted(versioned))
    return Directory(ordered, tuple(repeatable[name] for name in sorted(repeatable)), undo)


def _files(path: Path) -> list[Path]:
    """Every file below; links are followed, for an app's directory is made of them."""
    if not path.is_dir():
        raise _refused(f"there is no directory {path}")
    found: list[Path] = []
    for number, (root, names, files) in enumerate(os.walk(path, followlinks=True)):
        if number > DIRECTORIES_MAX:  # links may go in circles
            raise _refused(f"{path} holds more than {DIRECTORIES_MAX} directories")
        if len(Path(root).relative_to(path).parts) >= DEPTH_MAX:
            names.clear()
        names.sort()
        found += [Path(root, name) for name in sorted(files)]
        if len(found) > FILES_MAX:
            raise _refused(f"{path} holds more than {FILES_MAX} files")
    return found


def _sql_file(path: Path, version: Version) -> SqlFile:
    data = _read(path)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused(f"{path.name} is no UTF-8") from None
    checksum = hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()
    return SqlFile(path.name, path, version, checksum, _in_transaction(path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise _refused(f"{path.name} cannot be read: {error.strerror}") from None
    if len(data) > FILE_MAX:
        raise _refused(f"{path.name} is larger than {FILE_MAX >> 20} MiB")
    return data


def _in_transaction(path: Path) -> bool:
    """What the file beside it says, which may say nothing else: a wish we do not know is not passed over."""
    beside = path.with_name(path.name + ".conf")
    if not beside.is_file():
        return True
    whole = True
    for line in _read(beside).decode("utf-8", "replace").splitlines():
        words = line.split("#", 1)[0].strip()
        key, _, value = (part.strip() for part in words.partition("="))
        if not words:
            continue
        if key != "executeInTransaction" or value.lower() not in ("true", "false"):
            raise _refused(f"{beside.name}: {words[:60]!r} is not known here; executeInTransaction=false is")
        whole = value.lower() == "true"
    return whole


def _refused(message: str) -> Problem:
    return Problem(PERMANENT, "MigrationsInvalid", message, remedy="mend the directory and push again")
