"""`job`: a program that runs to its end, and when it does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from agent.domain.cron import CronInvalid, occurrences
from agent.domain.spec import JobSpec
from agent.source.problems import shown
from agent.source.schema.bounds import Isolation, Limits, Tier, isolation_spec, limits_spec
from agent.source.schema.container import container_spec
from agent.source.schema.place import Place
from agent.source.schema.run import USER, Stop, stop_spec
from agent.source.schema.scalars import Command, Duration, Raw, seconds

PARAMETERS_MAX = 50
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# What a job has no use for: nothing of it keeps running.
OF_SERVERS = (
    *("run", "place", "after", "listen", "socket", "swap", "health"),
    *("canary", "drain", "maintenance", "rollback"),
)


class Job(Raw, frozen=True, kw_only=True):
    """A program that runs to its end."""

    command: Command | None = None
    schedule: str | None = None
    time_zone: str | None = None
    after_release: bool | None = None
    overlap: bool | None = None
    missed: Literal["once", "skip"] | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    backoff: Duration | None = None
    timeout: Duration | None = None
    parameters: dict[str, str] | None = None
    user: str | None = None
    driver: Literal["exec", "oci"] | None = None
    hostname: str | None = None
    stop: Stop | None = None
    limits: Limits | None = None
    isolation: Tier | Isolation | None = None


def job_spec(raw: Job, place: Place) -> JobSpec:
    """The program, and when it runs; mistakes are noted in `place`."""
    container = container_spec(raw.driver, raw.hostname, place)
    if raw.command is None and container is None:
        place.missing("command")
    if raw.user is not None and not USER.fullmatch(raw.user):
        (place / "user").problem(f"{shown(raw.user)!r} is not the name or number of a user")
    if raw.timeout is not None and raw.timeout <= 0:
        (place / "timeout").problem("must be longer than nothing")
    _check_schedule(raw, place)
    default = JobSpec(command=())
    return JobSpec(
        command=(place / "command").command(raw.command),
        schedule=raw.schedule or "",
        time_zone=raw.time_zone or default.time_zone,
        after_release=bool(raw.after_release),
        overlap=bool(raw.overlap),
        missed=raw.missed or default.missed,
        retries=raw.retries or 0,
        backoff=seconds(raw.backoff, default.backoff),
        timeout=seconds(raw.timeout, default.timeout),
        parameters=_parameters(raw.parameters or {}, place / "parameters"),
        user=raw.user or "",
        stop=stop_spec(raw.stop or Stop(), place / "stop"),
        limits=limits_spec(raw.limits, place / "limits"),
        isolation=isolation_spec(raw.isolation, place / "isolation"),
        container=container,
    )


def refuse_servers_keys(given: Mapping[str, object], place: Place) -> None:
    """Note each key that an app with `job` cannot have."""
    for key in OF_SERVERS:
        if given.get(key) is not None:
            text = "an app with job has nothing that keeps running; write a second app for that"
            (place / key).problem(text, key=True)


def _check_schedule(raw: Job, place: Place) -> None:
    if not raw.schedule:
        for key in ("time_zone", "missed"):
            if getattr(raw, key) is not None:
                (place / key).problem("needs schedule", key=True)
        return
    try:
        occurrences(raw.schedule, raw.time_zone or "UTC", 0.0)
    except CronInvalid as error:
        key = "schedule" if error.field == "cron" else "time_zone"
        (place / key).problem(str(error))


def _parameters(raw: Mapping[str, str], place: Place) -> dict[str, str]:
    if len(raw) > PARAMETERS_MAX:
        place.problem(f"more than {PARAMETERS_MAX} parameters")
        return {}
    found = {}
    for name, value in raw.items():
        if not _VARIABLE.fullmatch(name) or name.startswith("EMPTYBOX_"):
            text = "the name of a variable holds letters, digits and _, and does not begin with EMPTYBOX_"
            (place / name).problem(text, key=True)
        found[name] = (place / name).render(value)
    return found
