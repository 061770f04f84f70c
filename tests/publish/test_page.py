"""docs/publishing.md is held to what the commands know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.cli import pack, publish
from agent.publish.compressors import KNOWN

PAGE = (Path(__file__).parents[2] / "docs/publishing.md").read_text()
FOREIGN = {"--omit", "--prefix"}


def test_every_option_that_is_shown_exists_and_every_one_of_publish_is_shown() -> None:
    known = {name for command in (pack, publish) for option in command.command.params for name in option.opts}
    shown = set(re.findall(r"(?<![\w|-])(--[a-z][a-z0-9-]+)", PAGE))
    assert shown - known == set()
    wanted = {name for option in publish.command.params for name in option.opts if name.startswith("--")}
    assert wanted - shown == {"--message"}


def test_every_ending_is_explained() -> None:
    assert {f"`{compressor.endings[0]}`" for compressor in KNOWN} == set(
        re.findall(r"^\| (`\.tar\S*`) \|", PAGE, re.MULTILINE)
    )


@pytest.mark.parametrize("link", re.findall(r"\]\((\.\.[^)#]+)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (Path(__file__).parents[2] / "docs" / link).exists()
