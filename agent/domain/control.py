"""What operators can ask for, as the HTTP face and the command line see it.

The composition root implements it; an operator's wish enters through the same inbox as every trigger.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agent.domain.events import SyncFinished


class UnknownApp(LookupError):
    """No such app; the text names the known ones."""


class NotPossible(Exception):
    """The wish makes sense but not now; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A wish that became (part of) a sync."""

    sync: str
    merged: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a program of an app said; at (RFC 3339), source and pid are empty where nobody knows.

    `source` is the app's name, or "app/command" for a check, a migration, a hook.
    """

    app: str
    text: str
    at: str = ""
    source: str = ""
    pid: int = 0


class JobControl(Protocol):
    """Wishes about jobs. Each raises UnknownApp and NotPossible."""

    async def run(self, app: str, by: str, parameters: Mapping[str, str]) -> str:
        """Begin a run now; returns its id."""

    async def stop(self, app: str, by: str) -> None:
        """Stop the runs under way."""

    async def wait(self, app: str, run: str, deadline: float) -> Mapping[str, Any] | None:
        """A run as JSON once it has ended; None when `deadline` seconds passed first."""

    async def runs(self, app: str = "", limit: int = 20, run: str = "") -> Sequence[Mapping[str, Any]]:
        """Past and present runs, or one, as JSON, newest first, with what they said."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """Its size, and its kind as TERM says it (terminfo(5))."""

    rows: int
    columns: int
    kind: str = "dumb"


@dataclass(frozen=True, slots=True)
class Ends:
    """What a command of `exec` is attached to.

    `started` is told once it runs. `give` takes what it says, on `out` or `err`; it raises ConnectionError
    when nobody listens any more. `input` is what it reads, None: nothing at all; it raises ConnectionError
    when it was cut short. With a `terminal` of its own all it says is on `out`, and the input says now and
    then what size that terminal has become.
    """

    started: Callable[[], Awaitable[None]]
    give: Callable[[str, bytes], Awaitable[None]]
    input: AsyncIterator[bytes | Terminal] | None = None
    terminal: Terminal | None = None


@dataclass(frozen=True, slots=True)
class ExecEnd:
    """How such a command ended: a code or a signal; its `timeout` (seconds) or a `limit` may be why."""

    code: int | None
    signal: int | None
    timeout: float | None
    limit: str
    seconds: float


class ExecControl(Protocol):
    """Commands that people run in an app, where the agent's settings allow it."""

    async def run(self, app: str, by: str, command: Sequence[str], timeout: float, ends: Ends) -> ExecEnd:
        """Run a command to its end, at most `timeout` seconds; cancelled, it is stopped.

        Raises UnknownApp, NotPossible, Failure (it cannot be started), ConnectionError (`ends` are gone).
        """

    async def history(self, app: str = "", limit: int = 20) -> Sequence[Mapping[str, Any]]:
        """Past and present ones as JSON, newest first: id, app, by, program, arguments (how many), result."""


class Control(Protocol):
    """Wishes of an operator. `by` names who asked, for history."""

    @property
    def jobs(self) -> JobControl:
        """Wishes about jobs."""

    @property
    def execs(self) -> ExecControl:
        """Commands in apps."""

    def sync(
        self, by: str, *, prune_all: bool = False, accept_history: bool = False, override: str = ""
    ) -> Accepted:
        """Look at the truth now; once removing every app, or a history that was rewritten, is allowed.

        `override` says why also in a freeze.
        """

    async def wait(self, sync: str, deadline: float) -> SyncFinished | None:
        """The end of a sync and of its runs; None when `deadline` seconds passed first."""

    async def rollback(self, app: str, by: str, to: str = "") -> Accepted:
        """Back to the good pair, or to spec digest or version `to`. Raises UnknownApp, NotPossible."""

    async def retry(self, app: str, by: str) -> Accepted:
        """Take an app's quarantine off and try again; app "" means all. Raises UnknownApp, NotPossible."""

    async def promote(self, app: str, by: str) -> Accepted:
        """End an app's canary well: the new version gets every client. Raises UnknownApp, NotPossible."""

    async def abort(self, app: str, by: str) -> Accepted:
        """End an app's canary badly: the new version is set aside. Raises UnknownApp, NotPossible."""

    async def pause(self, message: str, by: str) -> None:
        """Start no runs until `resume`."""

    async def resume(self, by: str) -> Accepted:
        """Undo `pause`, and look at the truth."""

    async def upgrade(self, by: str) -> Mapping[str, Any]:
        """Make way for the code installed now; apps go on. Raises NotPossible."""

    async def plan(self, ref: str = "") -> Mapping[str, Any]:
        """What a sync of `ref` ("" = the followed one) would do, as JSON; nothing is done."""

    async def history(self, *, app: str = "", limit: int = 20) -> Sequence[Mapping[str, Any]]:
        """Past runs, newest first, as JSON: id, sync, app, commit, version, result, steps, failure."""

    async def failed_syncs(self, limit: int = 20) -> Sequence[Mapping[str, Any]]:
        """Syncs that failed before any run, newest first, as JSON: id, triggers, commit, result, failure."""

    async def processes(self) -> Sequence[Mapping[str, Any]]:
        """Every process of ours and of the apps, as JSON: app, pid, state, since when, memory, processor."""

    async def doctor(self) -> Mapping[str, Any]:
        """What may be wrong with the host, and what is being waited for, as JSON: see `agent.doctor`."""

    async def stored(self) -> Mapping[str, Any]:
        """What the store of releases holds, for whom, and what it takes, as JSON."""

    async def verify_release(self, release: str, *, repair: bool) -> Mapping[str, Any]:
        """Whether a release is what was unpacked, as JSON; with `repair` what is not is fetched again.

        Raises NotPossible, Failure.
        """

    async def collect(self, *, dry_run: bool) -> Mapping[str, Any]:
        """Remove the releases nobody needs, or with `dry_run` only name them, as JSON."""

    async def logs(self, app: str, lines: int = 200) -> Sequence[Line]:
        """The last lines that an app's programs (app "": all apps') said, oldest first. Raises UnknownApp."""

    def following(
        self, app: str, lines: int = 200
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Line]]]:
        """The last lines, then new ones as they come, without an end; empty for a silence.

        Raises UnknownApp, NotPossible.
        """
