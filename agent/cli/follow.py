"""Asking for something that becomes a sync, and following that to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from agent.cli import words
from agent.cli.client import Agent, Refused, Unreachable
from agent.cli.exit_codes import FAILED, INTERRUPTED, NOT_NOW, OK
from agent.cli.screen import Screen, open_screen
from agent.cli.words import Json, clean

FOLLOW = 1800.0  # seconds a sync is followed; it goes on without us
STILL = 3.0  # seconds after which a sync that is not under way is not waiting for its turn either
AWAY = 15.0  # seconds the agent may be away meanwhile (it is started again)
FIRST_LOOK, LOOK = 0.05, 0.3  # seconds between looks: at first, and at most

_DONE = ("succeeded", "unchanged")
_GOING = ("running", "probation")
UNSEEN = "unseen"  # it ended, and others did before we looked


def ask(
    agent: Agent,
    path: str,
    wish: Mapping[str, Any],
    *,
    wait: bool,
    as_json: bool,
    to_wanted: bool = True,
    done: str = "",
) -> int:
    """Post `wish`; with `wait` follow the sync it became. Returns the exit code.

    `to_wanted` says that success means that each app is what the state wants, `done` is a further result
    that was asked for.
    """
    _, accepted = agent.post(path, wish)
    sync = str(accepted.get("sync", ""))
    if not wait:
        if as_json:
            words.print_json(accepted)
        else:
            joined = " (together with one that waits already)" if accepted.get("merged") else ""
            click.echo(f"accepted as {clean(sync)}{joined}")
        return OK
    with open_screen(quiet=as_json) as screen:
        try:
            end = Follower(agent, sync, screen).follow()
        except KeyboardInterrupt:
            screen.line("the agent goes on; see emptybox status")
            return INTERRUPTED
    return _told(sync, end, as_json=as_json, to_wanted=to_wanted, done=done)


def _held_up(status: Json) -> bool:
    """Whether a pause or a freeze is why nothing was done."""
    frozen = any(c["type"] == "Frozen" and c["status"] == "True" for c in status.get("conditions", ()))
    return bool(status.get("paused")) or frozen


def _told(sync: str, end: Json, *, as_json: bool, to_wanted: bool, done: str) -> int:
    result = end["result"]
    behind = _behind(end["status"]) if to_wanted and result in _DONE else {}
    well = result == done or (result in _DONE and not behind)
    code = OK if well else NOT_NOW if result in (*_GOING, UNSEEN) else FAILED
    if behind and (_held_up(end["status"]) or all(_by_hand(end["status"], app) for app in behind)):
        code = NOT_NOW
    if as_json:
        answer = {
            "sync": sync,
            "result": result,
            "failure": end["failure"],
            "runs": end["runs"],
            "behind": behind,
        }
        words.print_json(answer)
        return code
    for app, reason in behind.items():
        click.echo(f"{clean(app)}: not what is wanted: {clean(reason)}")
    if result == "running":
        click.echo(f"not done within {FOLLOW / 60:.0f} minutes; the agent goes on, see emptybox status")
    elif result == UNSEEN:
        click.echo(f"{clean(sync)} has ended; others ended before its result was seen, see emptybox history")
    else:
        click.echo(f"{clean(sync)} {words.word(result)}")
    if end["failure"]:
        click.echo("\n".join(f"  {line}" for line in words.failure_lines(end["failure"])))
    return code


def _behind(status: Json) -> dict[str, str]:
    """Apps that are not what is wanted, with the agent's reason."""
    found = {}
    for name, app in (status.get("apps") or {}).items():
        wanted, current = app.get("wanted") or {}, app.get("current") or {}
        if wanted and wanted.get("spec") != current.get("spec"):
            found[name] = wanted.get("reason") or "no reason is given"
    return found


def _by_hand(status: Json, app: str) -> bool:
    """Whether an operator went back to another version of the app."""
    conditions = status["apps"][app].get("conditions") or []
    return any(c.get("type") == "Diverged" and c.get("status") == "True" for c in conditions)


class Follower:
    """Looks at /status until a sync, and the probation of what it brought, is over."""

    def __init__(self, agent: Agent, sync: str, screen: Screen) -> None:
        self._agent = agent
        self._sync = sync
        self._screen = screen
        self._told: set[tuple[str, ...]] = set()
        self._begun = False  # it was seen under way, or must have been
        self._still_since = time.monotonic()

    def follow(self) -> dict[str, Any]:
        """result, failure, runs (as in /history) and the last status. Raises Unreachable, Refused."""
        until, pause = time.monotonic() + FOLLOW, FIRST_LOOK
        while True:
            status = self._look()
            for name, run in self._runs(status):
                self._tell(name, run)
            end = self._end(status)
            if end is not None and (end["result"] not in _GOING or time.monotonic() > until):
                return end
            if time.monotonic() > until:
                return {"result": "running", "failure": None, "runs": [], "status": status}
            time.sleep(pause)
            pause = min(LOOK, pause * 1.5)

    def _look(self) -> dict[str, Any]:
        until = time.monotonic() + AWAY
        while True:
            try:
                return self._agent.get("/status")
            except (Unreachable, Refused):
                if time.monotonic() > until:
                    raise
            time.sleep(LOOK)

    def _runs(self, status: Json) -> Iterator[tuple[str, Json]]:
        for name, app in (status.get("apps") or {}).items():
            for run in (app.get("run"), app.get("last_run")):
                if run and run.get("sync") == self._sync:
                    yield name, run

    def _end(self, status: Json) -> dict[str, Any] | None:
        """How the sync ended, or None while it has not. Ids sort by time."""
        source = status.get("source") or {}
        if any(sync.get("id") == self._sync for sync in source.get("running") or []):
            self._begun = True
            return None
        last = source.get("last_sync") or {}
        if last.get("id") != self._sync and not self._begun and self._may_wait(source, last):
            return None
        self._begun = True
        if last.get("id") == self._sync and last.get("result") == "unchanged":
            runs: list[Any] = []
        else:
            history = self._agent.get("/history", limit=100).get("runs") or []
            runs = [run for run in history if run.get("sync") == self._sync]
        if last.get("id") == self._sync:
            result, failure = last.get("result"), last.get("failure")
        else:  # others have ended since: the runs tell
            result, failure = _worst([str(run.get("result")) for run in runs]), None
        failed = [run["failure"] for run in runs if run.get("failure")]
        return {
            "result": str(result),
            "failure": failed[0] if failed else failure,
            "runs": runs,
            "status": status,
        }

    def _may_wait(self, source: Json, last: Json) -> bool:
        """Whether it may still wait for its turn: not if later ones ended and nothing is under way."""
        if str(last.get("id", "")) < self._sync or source.get("running"):
            self._still_since = time.monotonic()
        return time.monotonic() - self._still_since < STILL

    def _tell(self, name: str, run: Json) -> None:
        """Say what is new about a run."""
        run_id, app = str(run.get("id")), clean(name)
        if self._once(run_id):
            self._screen.line(f"{app}  {clean(run.get('reason') or '')}")
        running = {}
        for step in run.get("steps") or []:
            title, state = clean(step.get("name", "")), str(step.get("state"))
            if state == "running":
                running[f"{app}  {title}"] = step.get("progress") or {}
            elif state != "pending" and self._once(run_id, title, state):
                took = f" {words.seconds(step.get('seconds'))}" if state not in ("skipped", "undone") else ""
                self._screen.line(f"{app}  {title.ljust(12)} {words.word(state, 9)}{took}")
        self._screen.running(running)
        result = str(run.get("result"))
        if result == "probation" and self._once(run_id, "=", result):
            self._screen.line(f"{app}  live, {words.word(result)}: being watched")
        elif result not in _GOING and self._once(run_id, "=", result):
            self._screen.line(f"{app}  {words.word(result)} after {words.seconds(run.get('seconds'))}")

    def _once(self, *what: str) -> bool:
        new = what not in self._told
        self._told.add(what)
        return new


def _worst(results: list[str]) -> str:
    order = (
        "running",
        "failed",
        "rolled-back",
        "interrupted",
        "cancelled",
        "later",
        "probation",
        "succeeded",
    )
    return next((word for word in order if word in results), UNSEEN)
