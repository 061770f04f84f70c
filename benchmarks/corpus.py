"""What the benchmark of artifacts delivers: trees of files, and archives of them made by the usual tools."""

from __future__ import annotations

import hashlib
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
FILES = 9000  # in 1 GiB
_WORDS = [random.Random(number).randbytes(3).hex().encode() for number in range(4000)]


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive, or one file."""

    path: Path
    checksum: str

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size


def mixed(root: Path, size: int, count: int, seed: int = 0) -> None:
    """Fill a directory with `count` files of `size` bytes together: a few large, most small.

    Two of five are like pictures and packed things (noise), the others like programs and text.
    """
    chance = random.Random(seed)
    weights = [chance.lognormvariate(0, 2.2) for _ in range(count)]
    scale = size / sum(weights)
    for number, weight in enumerate(weights):
        path = root / f"d{number % 97}" / f"sub{number % 7}" / f"file-{number}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(chance, int(weight * scale), noise=number % 5 < 2))


def small(root: Path, count: int, size: int = 2048) -> None:
    """Fill a directory with so many small files."""
    chance = random.Random(1)
    for number in range(count):
        path = root / f"m{number % 211}" / f"{number}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(chance, chance.randrange(size * 2), noise=False))


def _content(chance: random.Random, size: int, *, noise: bool) -> bytes:
    if noise:
        return chance.randbytes(size)
    line = b" ".join(chance.choices(_WORDS, k=min(4000, size // 7 + 1))) + b"\n"
    return (line * (size // len(line) + 1))[:size] if size < 1 << 15 else _long(chance, size)


def _long(chance: random.Random, size: int) -> bytes:
    words = b" ".join(chance.choices(_WORDS, k=size // 7 + 1))
    return words[:size]


def tar(root: Path, target: Path) -> Packed:
    """By GNU tar."""
    subprocess.run(["tar", "-cf", target, "--owner=0", "--group=0", "-C", root, "."], check=True)
    return packed(target)


def compressed(archive: Path, program: str, suffix: str) -> Packed:
    """By gzip or zstd, as they do it by default."""
    target = archive.with_name(archive.name + suffix)
    with target.open("wb") as out:
        subprocess.run([program, "-c", archive], check=True, stdout=out)
    return packed(target)


def packed(path: Path) -> Packed:
    """A file with its digest."""
    with path.open("rb") as file:
        return Packed(path, "sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
