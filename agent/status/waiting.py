"""What is being waited for, since when, and what ends the wait: drawn from the picture of /status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.status.conditions import is_well

Json = dict[str, Any]


def waiting(snapshot: Json) -> list[Json]:
    """One object a wait: app (None: the agent), what, since (RFC 3339 or None), why, until."""
    return [
        *_of_agent(snapshot),
        *(wait for name, app in snapshot["apps"].items() for wait in _of(name, app)),
    ]


def _wait(app: str | None, what: str, since: str | None, why: str, until: str = "") -> Json:
    return {"app": app, "what": what, "since": since, "why": why, "until": until}


def _of_agent(snapshot: Json) -> Iterator[Json]:
    source, paused = snapshot["source"], snapshot["paused"]
    if paused is not None:
        yield _wait(None, "pause", paused["since"], paused["message"], "emptybox resume")
    for sync in source["running"]:
        yield _wait(None, "sync", sync["started"], f"{sync['id']} is under way")
    for condition in snapshot["conditions"]:
        if condition["type"] in _WAITS and is_well(condition["type"], condition["status"]) is False:
            poll = f"the next look at {source['next_poll']}" if source["next_poll"] else ""
            until = _WAITS[condition["type"]] or poll
            why = f"{condition['reason']}: {condition['message']}"
            yield _wait(None, condition["type"], condition["since"], why, until)


_WAITS = {
    "SourceReachable": "",
    "StateValid": "a commit that can be read",
    "DiskAnswers": "the disk answers",
}


def _of(name: str, app: Json) -> Iterator[Json]:
    run = app["run"]
    if run is not None:
        yield _wait(name, "run", run["started"], f"{run['id']}: {run['reason']}")
        for step in run["steps"]:
            if step["state"] == "running":
                attempt = f", attempt {step['attempt']}" if step["attempt"] > 1 else ""
                yield _wait(name, "step", step["started"], f"{step['name']} runs{attempt}")
    if app["state"] == "probation":
        since = app["current"]["since"] if app["current"] else None
        yield _wait(name, "probation", since, "the new version is watched", "health.probation")
    if app["gate"] in ("holding", "maintenance"):
        yield _wait(name, "port", None, f"clients are {app['gate']}", "the app answers again")
    restarting = (app["child"] or {}).get("restarting")
    if restarting is not None:
        yield _wait(name, "restart", None, restarting["reason"], restarting["due"])
    for condition in app["conditions"]:
        if condition["status"] == "True" and condition["type"] in _UNTIL:
            why = f"{condition['reason']}: {condition['message']}"
            until = _UNTIL[condition["type"]].format(app=name)
            yield _wait(name, condition["type"], condition["since"], why, until)


_UNTIL = {
    "Quarantined": "a changed specification, or: emptybox retry {app}",
    "Diverged": "a changed specification, or: emptybox retry {app}",
    "EnvironmentFailing": "it is looked at again by itself",
    "CrashLooping": "the cooldown of run.restart",
}
