"""The disk of `powercuts` keeps what was flushed, and of the rest what the dice say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.endurance import volatile
from tests.endurance.volatile import SECTOR, VolatileDisk


@pytest.mark.parametrize("chance", [0.0, 1.0])
async def test_what_was_flushed_survives_a_power_cut_and_the_rest_as_the_dice_say(
    chance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volatile, "CHANCES", (chance,))
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(8 * SECTOR))
    async with VolatileDisk(image, tmp_path / "disk.sock") as disk:
        disk.write(0, b"a" * SECTOR)
        disk.flush()
        disk.write(0, b"b" * SECTOR)
        disk.write(4 * SECTOR, b"c" * 2 * SECTOR)
        assert disk.read(0, SECTOR) == b"b" * SECTOR
        assert image.read_bytes()[:SECTOR] == b"a" * SECTOR
        disk.cut(random.Random(1))
        first = b"b" if chance else b"a"
        assert disk.read(0, SECTOR) == first * SECTOR
        assert disk.read(4 * SECTOR, 2 * SECTOR) == (b"c" if chance else b"\0") * 2 * SECTOR
        assert image.read_bytes() == disk.read(0, 8 * SECTOR)
        assert (disk.lost > 0) is (chance == 0.0)
