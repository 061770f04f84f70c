"""docs/operations.md is held to what the program knows: reasons, conditions, codes, settings, metrics."""

import re
from pathlib import Path

import pytest

from agent.cli import exit_codes
from agent.cli.main import VERBS
from agent.config import SETTINGS
from agent.domain.model import AppState
from agent.status.conditions import REASONS, TYPES

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text()
WORDS = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)*\b", PAGE))
TROUBLE = PAGE.partition("## When something is wrong")[2]
NOT_SHOWN = {AppState.STOPPED, AppState.PLACED}  # what is gone is not shown; nothing is only placed yet


def first_cells(text: str) -> set[str]:
    cells = re.findall(r"^\| ([A-Z][A-Za-z, ]+) \|", text, re.MULTILINE)
    return {word.strip() for cell in cells for word in cell.split(",")}


def test_every_reason_is_explained_and_no_other_word_is() -> None:
    assert sorted(REASONS.keys() - WORDS) == []
    assert sorted(first_cells(TROUBLE) - REASONS.keys()) == []


def test_every_condition_and_state_is_explained() -> None:
    assert sorted(TYPES.keys() - first_cells(PAGE)) == []
    told = set(re.findall(r"^\| ([a-z]+) \|", PAGE, re.MULTILINE))
    assert {str(state) for state in set(AppState) - NOT_SHOWN} - told == set()


def test_every_exit_code_is_explained() -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    told = set(map(int, re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)))
    assert codes - told == set()


def test_commands_and_settings_that_are_shown_exist() -> None:
    shown = set(re.findall(r"emptybox ([a-z]+)", PAGE)) - {"itself"}
    assert shown - VERBS.keys() == set()
    flags = set(re.findall(r"(?<![\w|-])(--[a-z][a-z-]+)", PAGE))
    others = {
        "--json",
        "--steps",
        "--to",
        "--override",
        "--prune-all",
        "--accept-history",
        "--app",
        "--output",
        "--config",
        "--help",
        "--bundle",
        "--repair",
        "--dry-run",
        "--timeout",
    }
    foreign = {"--data-binary", "--unix-socket", "--export", "--build-arg"}  # of curl, gpg, buildah
    foreign |= {
        "--system",
        "--home-dir",
        "--shell",
        "--mode",
        "--now",
        "--upgrade",
    }  # of a server's own tools
    assert flags - others - foreign - {setting.flag for setting in SETTINGS} == set()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert link.startswith("https://") or (Path(__file__).parents[2] / "docs" / link).exists()


def test_metrics_that_are_shown_exist() -> None:
    source = (Path(__file__).parents[2] / "agent/status/metrics.py").read_text()
    for name in re.findall(r"emptybox_[a-z_]+", PAGE):
        assert f'"{name.removesuffix("_total")}"' in source
