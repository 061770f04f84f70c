"""How the picture is put into words for people, in the text form and on the dashboard alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from agent.kit.clock import span
from agent.status.conditions import is_well
from agent.status.log import shown

Json = dict[str, Any]

_TONES = {
    "running": "well",
    "placed": "well",
    "ready": "well",
    "working": "well",
    "updating": "busy",
    "canary": "busy",
    "probation": "busy",
    "degraded": "warn",
    "maintenance": "warn",
    "failed": "bad",
}


def seconds_of(time: str | None) -> float:
    """RFC 3339 as seconds since the epoch; 0.0 for none."""
    return datetime.fromisoformat(time).timestamp() if time else 0.0


def age(time: str | None, now: float) -> str:
    """How long ago: "now", "12 s", "3 min", "2 h", "5 d"; "" for never. One unit, so that it reads fast."""
    if not time:
        return ""
    seconds = max(0, int(now - seconds_of(time)))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s" if seconds else "now"


def ago(time: str | None, now: float) -> str:
    """The same as a phrase: "12 s ago", "just now", "never"."""
    word = age(time, now)
    return {"": "never", "now": "just now"}.get(word, f"{word} ago")


def until(time: str, now: float) -> str:
    """How long until then: "42 s", "3 min"; "a moment" when it is due."""
    seconds = int(seconds_of(time) - now)
    if seconds < 1:
        return "a moment"
    return f"{seconds} s" if seconds < 100 else f"{seconds // 60} min"


def short(identity: str | None) -> str:
    """A commit or digest short enough to be read: its algorithm's name off, twelve characters."""
    return (identity or "").rpartition(":")[2][:12]


def tone(app: Json) -> str:
    """well, busy, warn, bad or none: how an app is doing, for colours."""
    if app["state"] == "updating" and not app["serving"] and app["current"] is not None:
        return "warn"
    return _TONES.get(app["state"], "none")


def verdict(snapshot: Json) -> tuple[str, str]:
    """Tone and sentence for the whole host."""
    apps = snapshot["apps"]
    tones = {name: tone(app) for name, app in apps.items()}
    for word, say in (("bad", "failed"), ("warn", "in need of attention")):
        names = [name for name, its in tones.items() if its == word]
        if names:
            return word, f"{names[0] if len(names) == 1 else f'{len(names)} apps'} {say}"
    if not apps:
        last = snapshot["source"]["last_sync"]
        if last is not None and last["failure"] is not None:
            return "bad", "the state could not be read"
        return ("none", "waiting for the first sync") if last is None else ("none", "no apps for this host")
    if snapshot["paused"] is not None:
        return "warn", "updates are paused"
    busy = [name for name, its in tones.items() if its == "busy"]
    if busy:
        return "busy", f"{busy[0] if len(busy) == 1 else f'{len(busy)} apps'} updating"
    idle = sum(its == "none" for its in tones.values())
    if idle:
        return "none", f"{idle} of {len(apps)} apps not running"
    return "well", "all apps serve" if len(apps) > 1 else f"{next(iter(apps))} serves"


def progress_text(progress: Json | None) -> str:
    """12.3 of 80.0 MB, 3 of 7 files, 40 %."""
    if progress is None:
        return ""
    done, total, unit = progress["done"], progress["total"], progress["unit"]
    if unit == "bytes":
        size, word = next((s, w) for s, w in _SIZES if max(done, total) >= s or s == 1)
        shown = f"{done / size:.1f}" if size > 1 else str(done)
        of = f"{total / size:.1f}" if size > 1 else str(total)
        return f"{shown} of {of} {word}" if total else f"{shown} {word}"
    return f"{done} of {total} {unit}" if total else f"{done} {unit}"


_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))


def noteworthy(conditions: list[Json]) -> list[Json]:
    """The conditions that are bad news."""
    return [c for c in conditions if is_well(c["type"], c["status"]) is False]


def as_text(snapshot: Json, now: float) -> str:
    """The picture for a terminal; foreign text cannot steer it."""
    lines = [part for line in _lines(snapshot, now) for part in line.splitlines() or [""]]
    return "".join(f"{shown(line)}\n" for line in lines)


def _lines(snapshot: Json, now: float) -> Iterator[str]:
    agent, source = snapshot["agent"], snapshot["source"]
    labels = "".join(f", {name}={value}" for name, value in agent["labels"].items())
    yield f"{agent['host']}: {verdict(snapshot)[1]}"
    yield f"  agent    emptybox {agent['version']}, up {span(agent['uptime_seconds'])}{labels}"
    yield f"  source   {source['repo']} {source['ref']}"
    last = source["last_sync"]
    if last is not None:
        at = f" at {short(last['commit'])}" if last["commit"] else ""
        yield f"  sync     {last['result']}{at}, {ago(last['at'], now)}"
        if last["failure"] is not None:
            yield from _failure(last["failure"], "           ")
    if snapshot["paused"] is not None:
        yield f"  paused   {snapshot['paused']['message']} ({snapshot['paused']['by']})"
    for condition in noteworthy(snapshot["conditions"]):
        yield f"  ! {condition['type']}: {condition['reason']}: {condition['message']}"
    for name, app in snapshot["apps"].items():
        yield ""
        yield from _app(name, app, now)


def _app(name: str, app: Json, now: float) -> Iterator[str]:
    current, wanted, run = app["current"], app["wanted"], app["run"]
    serves = "" if app["serving"] else ", does not serve"
    yield f"{name}: {app['state']}{serves}"
    if current is not None:
        yield f"  current  {_pair(current)}, since {ago(current['since'], now)}"
    if wanted is not None and (current is None or wanted["spec"] != current["spec"]):
        why = f", {wanted['reason']}" if wanted["reason"] else ""
        yield f"  wanted   {_pair(wanted)}{why}"
    yield from _children(app["child"] or {}, now)
    yield from _job(app.get("job") or {}, now)
    good = app["good"]
    if good is not None and (current is None or good["spec"] != current["spec"]):
        yield f"  good     {_pair(good)}"
    if run is not None:
        yield f"  run      {run['id']}: {run['reason']}, for {span(run['seconds'])}"
        for step in run["steps"]:
            yield from _step(step)
    elif app["last_run"] is not None:
        last = app["last_run"]
        yield f"  last run {last['result']} in {span(last['seconds'])}, {ago(last['started'], now)}"
    for condition in noteworthy(app["conditions"]):
        yield f"  ! {condition['type']}: {condition['reason']}: {condition['message']}"
    failure = app["last_failure"]
    if failure is not None:
        yield f"  last failure, {ago(failure['at'], now)}"
        yield from _failure(failure, "    ")
        for line in failure["log"][-20:]:
            yield f"    | {line}"


def _children(child: Json, now: float) -> Iterator[str]:
    """A line each of several instances, or of one that says how it is; and when what ended starts again."""
    if child.get("instances_wanted", 0) > 1 or any(each["status"] for each in child.get("instances", ())):
        for each in child["instances"]:
            since = f", since {ago(each['since'], now)}" if each["since"] else ""
            told = f"{each['number']} {each['state']:9} {each['version']} pid {each['pid']}"
            says = f": {each['status']}" if each["status"] else ""
            yield f"  instance {told}{since}{says}"
    if child.get("restarting"):
        yield f"  restart  {child['restarting']['reason']}; next at {child['restarting']['due']}"


def _job(job: Json, now: float) -> Iterator[str]:
    """When it runs next, what runs, and how the last run ended."""
    if job.get("next"):
        yield f"  next     {job['next']}, in {until(job['next'], now)}"
    for each in job.get("running") or []:
        yield f"  running  {each['id']} ({each['cause']}) pid {each['pid']}, since {ago(each['since'], now)}"
    if last := job.get("last"):
        code = f" with exit code {last['code']}" if last["code"] else ""
        yield f"  job      {last['result']}{code}, {ago(last['ended'], now)}"


def _pair(pair: Json) -> str:
    told = [
        pair["version"],
        f"commit {short(pair['commit'])}" if pair["commit"] else "",
        short(pair["digest"]),
        f"signed by {pair['signer']}" if pair.get("signer") else "",
        f"artifact signed by {pair['artifact_signer']}" if pair.get("artifact_signer") else "",
    ]
    return " ".join(text for text in told if text)


def _step(step: Json) -> Iterator[str]:
    told = [span(step["seconds"]) if step["seconds"] else "", progress_text(step["progress"])]
    if step["attempt"] > 1:
        told.append(f"attempt {step['attempt']}")
    yield f"    {step['state']:9} {step['name']:14} {', '.join(text for text in told if text)}".rstrip()


def _failure(failure: Json, indent: str) -> Iterator[str]:
    where = f"{failure['where']}: " if failure["where"] else ""
    yield f"{indent}{failure['reason']}: {where}{failure['message']}"
    if failure["remedy"]:
        yield f"{indent}{failure['remedy']}"
