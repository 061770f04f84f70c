"""A disk that stops answering: an ext4 of its own on a loop device, which freezes and thaws.

While it is frozen whoever writes, syncs or renames on it waits, in the kernel and for ever, as on a volume
whose server is gone; nobody gets an error.

with HangingDisk(directory) as disk:
    with disk.frozen():
        ...
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

SIZE = 48 << 20  # bytes
# It thaws when its standard input ends: also when the test was killed.
FREEZER = 'fsfreeze -f "$0" || exit; echo frozen; read -r _; exec fsfreeze -u "$0"'


class HangingDisk:
    """Mounted at a directory, which must not be there before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._image = directory.with_name(f"{directory.name}.img")

    def __enter__(self) -> Self:
        """Skips the test where such a disk is not to be had, CI's own included: it may run anywhere."""
        self.directory.mkdir()
        with self._image.open("wb") as image:
            os.truncate(image.fileno(), SIZE)
        for command in (["mkfs.ext4", "-q", "-F"], ["mount", "-o", "loop"]):
            where = [self._image] if command[0] == "mkfs.ext4" else [self._image, self.directory]
            try:
                done = subprocess.run([*command, *where], check=False, capture_output=True, text=True)
                said = done.stderr if done.returncode else ""
            except FileNotFoundError as error:
                said = str(error)
            if said:
                pytest.skip(f"no disk can be mounted here: {said.strip()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lazily: a process that waited in the kernel may be ending still."""
        subprocess.run(["umount", "-l", self.directory], check=False, capture_output=True)
        self._image.unlink()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does not answer."""
        command = ["sh", "-c", FREEZER, str(self.directory)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as freezer:
            assert freezer.stdin is not None and freezer.stdout is not None
            try:
                assert freezer.stdout.readline() == b"frozen\n"
                yield
            finally:
                freezer.stdin.close()
                freezer.wait()
