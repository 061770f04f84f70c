from __future__ import annotations

from pathlib import Path

from agent.config import Settings
from agent.doctor.findings import Verdict
from agent.doctor.machine import machine


def test_a_place_root_that_is_not_there_is_found_and_one_that_is_there_is_not(tmp_path: Path) -> None:
    roots = (tmp_path, tmp_path / "missing")
    found = [f for f in machine(Settings(data=tmp_path, place_roots=roots)) if f.subject == "place root"]
    assert [(f.verdict, str(tmp_path / "missing") in f.told) for f in found] == [(Verdict.BAD, True)]
