"""The tables of the page on isolation, which tests try line by line."""

from __future__ import annotations

from tests.kit.image import ROOT


def table(section: str) -> dict[str, dict[str, str]]:
    """The table of a section of docs/isolation.md: first cell of a line, head of a column, cell."""
    text = (ROOT / "docs/isolation.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
