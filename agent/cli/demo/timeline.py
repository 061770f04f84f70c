"""What the demo prints: plain lines in a pipe, the same in colour with a moving last line on a terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from agent.cli.demo.account import Account, StepAccount
from agent.cli.demo.load import Load
from agent.cli.words import clean
from agent.kit.clock import span
from agent.kit.tasks import Owned

NAME, TIME = 16, 9  # widths of columns
LOG_LINES = 6
REFRESH = 0.1  # seconds
_TONES = {"succeeded": "green", "probation": "cyan", "failed": "red", "rolled-back": "red"}


class Timeline:
    """Prints. `quiet` prints nothing, for output that is read by a program."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(quiet=quiet, highlight=False)
        self._began = time.time()

    def line(self, *parts: str | tuple[str, str]) -> None:
        """A line; a part is a text, or a text and its style."""
        self._console.print(Text.assemble(*parts), soft_wrap=True)

    def heading(self, title: str, what: str = "") -> None:
        """A new part."""
        self.line()
        self.line((title, "bold"), ("  " if what else "") + what, (f"  (at {self._now()})", "dim"))

    def _now(self) -> str:
        return f"{time.time() - self._began:.1f} s"

    def entry(self, name: str, took: str, note: str = "", style: str = "") -> None:
        """One thing that happened, how long it took, and a word about it."""
        self.line("  ", (name.ljust(NAME), style), took.rjust(TIME), ("   " + note, "dim") if note else "")

    def deployed(self, run: Account) -> None:
        """A run up to the answer of the new version, step by step."""
        if run.push:
            self.entry("git push", _ms(run.push.seconds), f"main is {run.push.commit[:10]} now")
        if run.delivery:
            note = f"signed; answered {run.delivery.status} and the sync's id"
            self.entry("webhook", _ms(run.delivery.seconds), note)
        origin = run.delivery.sent if run.delivery else run.steps[0].began if run.steps else 0.0
        for step in run.steps:
            self._step(step, origin)
        if run.live:
            took = [f"{_ms(run.webhook_to_live)} after the webhook"] if run.delivery else []
            took += [f"{_ms(run.push_to_live)} after git push began"] if run.push else []
            self.line("  ", (f"{clean(run.version)} is live", "bold green"), ": ", ", ".join(took))

    def _step(self, step: StepAccount, origin: float) -> None:
        note = f"at +{_ms(step.began - origin)}"
        note += f"   {clean(step.why)}" if step.why else ""
        if step.result != "succeeded":
            note = f"{step.result}   {note}"
        self.entry(clean(step.name), _ms(step.seconds), note, _TONES.get(step.result, ""))

    def failed(self, failure: Mapping[str, Any]) -> None:
        """A failure: its reason and the last lines of the app's log."""
        self.line("  ", (clean(failure["reason"]), "bold red"), f": {clean(failure['message'])}")
        for line in list(failure.get("log") or [])[-LOG_LINES:]:
            self.line("    ", (f"| {clean(line)}", "dim"))

    def result(self, text: str, result: str, note: str) -> None:
        """How something ended."""
        self.line("  ", (clean(text), _TONES.get(result, "")), (f"   {clean(note)}", "dim"))

    def requests(self, load: Load, swaps_began: float) -> None:
        """What became of the requests; the first swap began then (seconds since the epoch)."""
        rate = load.total / load.seconds if load.seconds else 0.0
        by_version = ", ".join(f"{clean(name)} {count:,}" for name, count in sorted(load.answered.items()))
        note = f"{rate:.0f} a second for {span(load.seconds)}, each on a connection of its own"
        self.entry("requests", f"{load.total:,}", note)
        self.entry("  answered", f"{sum(load.answered.values()):,}", f"by {by_version}")
        when = ", all of them before there was a first version" if 0.0 < load.page_last < swaps_began else ""
        self.entry("  page", f"{load.page:,}", f"answered by the maintenance page{when}")
        lost = sum(load.lost.values())
        why = ", ".join(f"{clean(reason)} {count}" for reason, count in load.lost.items())
        self.entry("  lost", f"{lost:,}", why, "red" if lost else "green")
        self.entry("  slowest", _ms(load.slowest))

    def check(self, name: str, ok: bool, detail: str) -> None:
        """One thing that had to happen."""
        mark = ("✓", "green") if ok else ("✗", "bold red")
        self.line("  ", mark, f" {name}", ("" if not detail else f"  ({clean(detail)})", "dim"))

    @asynccontextmanager
    async def waiting(self, what: str, load: Load | None = None) -> AsyncIterator[None]:
        """On a terminal: a last line that moves, with what is waited for and the requests so far."""
        if not self._console.is_terminal or self._console.quiet:
            yield
            return
        with self._console.status(what) as status:

            def show() -> None:
                lost = sum(load.lost.values()) if load else 0
                so_far = f"   {load.total:,} requests, {lost} lost" if load else ""
                status.update(f"[dim]{what}{so_far}[/dim]")

            async with Owned("timeline") as tasks:
                tasks.start(_often(show), name="status")
                yield


async def _often(show: Callable[[], None]) -> NoReturn:
    while True:
        show()
        await asyncio.sleep(REFRESH)


def _ms(seconds: float) -> str:
    """Milliseconds: one digit behind the point where it says something."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:,.0f} ms"
