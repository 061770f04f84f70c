"""examples/jobs as it lies there: the tasks of a container that exists for one task."""

from __future__ import annotations

from pathlib import Path

from tests.kit.box import Box
from tests.kit.git_server import Content
from tests.kit.operator import run

EXAMPLE = Path(__file__).parents[2] / "examples/jobs"


async def push(box: Box, state: str | None = None) -> None:
    """The example's repository, with another state if one is given."""
    files: dict[str, Content] = {f"tasks/{file.name}": file.read_text() for file in EXAMPLE.glob("tasks/*")}
    await box.commit(state or (EXAMPLE / "state.yaml").read_text(), files)


async def test_the_search_says_what_it_finds_and_fails_with_a_message_without_its_file(box: Box) -> None:
    await push(box)
    told = await run(*box.command("once")[4:], "--app", "search")
    assert (told.code, told.out) == (0, "an important line\nthe most important of all\n")

    text = (EXAMPLE / "state.yaml").read_text()
    await push(box, text.replace("      - {template: tasks/data.txt, target: data.txt}\n", ""))
    told = await run(*box.command("once")[4:], "--app", "search")
    assert (told.code, told.out) == (1, "data.txt is missing\n")


async def test_the_values_are_printed_each_on_its_line(box: Box) -> None:
    await push(box)
    told = await run(*box.command("once")[4:], "--app", "values")
    assert (told.code, told.out) == (0, "alpha\nbeta\n")
