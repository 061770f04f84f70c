"""The comparison of docs/isolation.md: each line names tests that there are, some of them here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.keeper.confine import landlock
from agent.process.isolation import ORDINARY
from tests.kit import sandbox
from tests.kit.box import Box
from tests.kit.image import ROOT
from tests.kit.operator import Operator
from tests.kit.tables import table
from tests.system.test_isolation import open_path

__all__ = ["open_path"]
HEALTH = {"alive": "100ms", "deadline": "30s", "probation": "100ms"}
LOOK = "id -u; grep -E 'Cap(Prm|Eff)' /proc/self/status"
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def all_tests() -> Iterator[str]:
    for path in (ROOT / "tests").rglob("test_*.py"):
        yield from re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)


def test_each_line_of_the_comparison_names_tests_that_there_are() -> None:
    section = (ROOT / "docs/isolation.md").read_text().split("\n## Compared\n")[1].split("\n## ")[0]
    there = set(all_tests())
    rows = table("Compared")
    assert len(rows) == 10
    for row in rows.values():
        assert re.findall(r"`(test_\w+)`", row["tried by"])
    assert set(re.findall(r"`(test_\w+)`", section)) <= there


def standing(text: str) -> dict[str, str]:
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in text.splitlines())}


async def test_what_a_tier_takes_away_is_gone_for_the_program_and_its_commands(box: Box) -> None:
    sandbox.as_root()
    if landlock.version() < 1:
        pytest.skip("needs Landlock")
    box.settings["--allow-exec"] = "*"
    run = {"command": ["sleep", "1000"]}
    apps: dict[str, Any] = {
        tier: {"version": "1", "run": {**run, "isolation": tier}, "health": HEALTH}
        for tier in ("standard", "strict")
    }
    await box.commit({"schema": 1, "apps": apps})
    await box.start()
    kept = {"standard": sum(1 << number for number in ORDINARY), "strict": 0}
    for tier, wanted in kept.items():
        app = await box.app_is(tier, state="running", good__version="1")
        told = await Operator(box)("exec", tier, "cat", "/proc/self/status")
        for text in (Path(f"/proc/{app['child']['pid']}/status").read_text(), told.out):
            found = standing(text)
            assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
            held = {name: int(found[name], 16) for name in SETS}
            assert held.pop("CapInh") == held.pop("CapAmb") == 0
            assert set(held.values()) == {wanted}


async def test_strict_holds_without_root_in_a_container_of_docker(open_path: Path) -> None:
    """The agent is nobody, without capabilities, and under the filter that Docker has by default."""
    sandbox.as_root()
    if landlock.version() < landlock.PORTS_SINCE:
        pytest.skip("needs Landlock with ports")
    os.chown(open_path, sandbox.NOBODY, sandbox.NOBODY)
    outside = open_path / "outside"
    outside.write_text("not for the app")
    async with Box(open_path, settings={"--allow-exec": "web"}) as box:
        box.secret_file.chmod(0o644)
        box.data.mkdir()
        os.chown(box.data, sandbox.NOBODY, sandbox.NOBODY)
        box.wrapper = sandbox.in_docker(root=False)
        run = {"command": ["sleep", "1000"], "isolation": {"tier": "strict", "connect": []}}
        web = {"version": "1", "run": run, "dirs": {"state": "data"}, "health": HEALTH}
        await box.commit({"schema": 1, "apps": {"web": web}})
        await box.start()
        app = await box.app_is(state="running", good__version="1")
        isolation = app["child"]["isolation"]
        assert {"no_new_privs", "capabilities", "calls", "files", "ports", "connect", "ptrace"} <= set(
            isolation["in_force"]
        )
        assert isolation["lacking"] == {}
        told = await Operator(box)("exec", "web", "sh", "-c", f"{LOOK}; echo x > data/x && cat {outside}")
        nothing = "0" * 16
        assert told.code == 1
        assert told.out.split() == [str(sandbox.NOBODY), "CapPrm:", nothing, "CapEff:", nothing]
        assert "Permission denied" in told.err
