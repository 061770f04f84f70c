"""What is shown while one waits: lines in a pipe, moving bars below the lines on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import click

from agent.cli import words
from agent.cli.words import Json, clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.status import Status

MOMENT = 0.4  # seconds that need no word
REPEAT = 5.0  # seconds between two lines about the same progress in a pipe


class Screen(Protocol):
    """Where progress is told; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def line(self, text: str) -> None:
        """Say something that stays."""

    def running(self, steps: Mapping[str, Json]) -> None:
        """Show what runs now: titles with progress (`done`, `total`, `unit`; may be empty)."""


class Nothing:
    """Says nothing: the output is for a program."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def line(self, text: str) -> None:
        """See Screen."""

    def running(self, steps: Mapping[str, Json]) -> None:
        """See Screen."""


class Lines(Nothing):
    """One line after the other."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def line(self, text: str) -> None:
        """See Screen."""
        click.echo(text)

    def running(self, steps: Mapping[str, Json]) -> None:
        """See Screen."""
        now = time.monotonic()
        for title, progress in steps.items():
            if now - self._told.setdefault(title, now) >= REPEAT:
                self._told[title] = now
                click.echo(f"{title} {_amount(progress)}".rstrip())


class Bars:
    """Lines, and below them a bar for each running step."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}", markup=False),
            TimeElapsedColumn(),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        """See Screen."""
        from rich.text import Text

        self._progress.console.print(Text.from_ansi(text))

    def running(self, steps: Mapping[str, Json]) -> None:
        """See Screen."""
        for title in [title for title in self._tasks if title not in steps]:
            self._progress.remove_task(self._tasks.pop(title))
        for title, progress in steps.items():
            if title not in self._tasks:
                self._tasks[title] = self._progress.add_task(title, total=None, told="")
            self._progress.update(
                self._tasks[title],
                completed=progress.get("done") or 0,
                total=progress.get("total") or None,
                told=_amount(progress),
            )


def open_screen(*, quiet: bool) -> Screen:
    """The screen that fits where the output goes."""
    if quiet:
        return Nothing()
    if sys.stdout.isatty():
        return Bars()
    return Lines()


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Say on a terminal what one waits for, when it takes longer than a moment."""
    if not sys.stderr.isatty():
        yield
        return
    shown: list[Status] = []

    def show() -> None:
        from rich.console import Console

        shown.append(Console(stderr=True).status(text))
        shown[0].start()

    timer = threading.Timer(MOMENT, show)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for status in shown:
            status.stop()


def _amount(progress: Json) -> str:
    if not progress:
        return ""
    done, total = progress.get("done") or 0, progress.get("total") or 0
    return words.amount(done, total, clean(progress.get("unit") or "bytes"))
