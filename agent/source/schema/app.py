"""One app: every key it may have, and how the whole becomes an `AppSpec`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from agent.domain.spec import AppSpec, HealthSpec, Swap
from agent.source.schema.artifact import Artifact, artifact_spec
from agent.source.schema.container import check_container
from agent.source.schema.files import (
    Dirs,
    File,
    check_overlaps,
    directories,
    environment,
    managed_files,
)
from agent.source.schema.health import Health, health_spec
from agent.source.schema.job import Job, job_spec, refuse_servers_keys
from agent.source.schema.migrations import Migration, Rollback, job_migrations, migration_specs
from agent.source.schema.place import Place
from agent.source.schema.placed import Drift, drift_spec, place_specs, refuse_mixtures
from agent.source.schema.run import Run, check_instances, run_spec
from agent.source.schema.scalars import Command, Port, Raw
from agent.source.schema.secrets import Revealed, Secret, secret_values
from agent.source.schema.steps import Hooks, Task, hooks_spec, task_specs
from agent.source.schema.traffic import (
    Canary,
    Drain,
    Listen,
    Maintenance,
    canary_spec,
    drain_spec,
    maintenance_spec,
    ports,
    socket_mode,
    swap_of,
)

VERSION_MAX = 128
_VERSION = re.compile(r"[!-~]{1,128}")


class App(Raw, frozen=True, kw_only=True):
    """One named thing to run, place or execute."""

    only: dict[str, str | list[str]] | None = None
    version: str | None = None
    artifact: Artifact | None = None
    files: list[File] | None = None
    dirs: Dirs | None = None
    env: dict[str, str] | None = None
    secrets: dict[str, Secret] | None = None
    tasks: dict[str, Task] | None = None
    migrate: list[Migration] | Migration | None = None
    rollback: Rollback | None = None
    run: Run | None = None
    listen: Port | dict[str, Port | Listen] | None = None
    socket: Literal["adopt", "fd", "relay"] | None = None
    swap: Swap | None = None
    health: Health | None = None
    canary: Canary | None = None
    drain: Drain | None = None
    maintenance: Maintenance | None = None
    hooks: Hooks | None = None
    keep: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    place: str | dict[str, str] | None = None
    after: Command | None = None
    drift: Drift | None = None
    job: Job | None = None
    needs: list[str] | None = None


def app_spec(name: str, raw: App, place: Place) -> AppSpec:
    """The app as it is wanted on this host; every mistake is noted at its place.

    Raises SecretRefused when a secret is not to be had for now.
    """
    place = place.seeing(version=_version(raw, place))
    if raw.place is not None:
        refuse_mixtures(msgspec.structs.asdict(raw), place)
        return _of_files(name, raw, place)
    if raw.job is not None:
        refuse_servers_keys(msgspec.structs.asdict(raw), place)
        return _of_job(name, raw, raw.job, place)
    if raw.run is None and place.intact("place", "job"):
        place.missing("run", "or job, which runs to its end, or place, for files only")
    if raw.after is not None:
        (place / "after").problem("needs place", key=True)
    secrets = secret_values(raw.secrets or {}, place / "secrets")
    artifact = artifact_spec(raw.artifact, place / "artifact", secrets) if raw.artifact else None
    files = managed_files(raw.files or [], place / "files", secrets)
    dirs = directories(raw.dirs, place / "dirs")
    check_overlaps(files, dirs, place)
    listen, udp = ports(raw.listen, place / "listen")
    listens = (raw.listen is not None and not (udp and not listen)) or not place.intact("listen")
    socket = socket_mode(raw.socket, listens, place / "socket")
    meant = place.intact("listen", "socket")
    swap = swap_of(raw.swap, socket, place / "swap", udp=bool(udp), sound=meant)
    spec = AppSpec(
        name=name,
        version=raw.version or "",
        artifact=artifact,
        files=files,
        dirs=dirs,
        env=environment(raw.env, (place / "env").seeing(secrets=secrets)),
        secrets=dict(secrets.values_read),
        salt=_salt(secrets, place),
        tasks=task_specs(raw.tasks or {}, place / "tasks"),
        migrate=migration_specs(raw.migrate, place / "migrate", secrets),
        down=raw.rollback is not None and raw.rollback.down is True,
        run=run_spec(raw.run, place / "run") if raw.run else None,
        listen=listen,
        udp=udp,
        socket=socket,
        swap=swap,
        health=health_spec(raw.health, listen, place / "health", listens=listens),
        canary=canary_spec(raw.canary, swap, listens, place / "canary"),
        drain=drain_spec(raw.drain),
        maintenance=maintenance_spec(raw.maintenance, place / "maintenance"),
        hooks=hooks_spec(raw.hooks, place / "hooks"),
        drift=drift_spec(raw.drift, place / "drift"),
        needs=tuple(dict.fromkeys(raw.needs or ())),
        keep=raw.keep or AppSpec(name="", version="").keep,
    )
    check_instances(spec.run, spec, place / "run" / "instances")
    check_container(spec, place)
    return spec


def _of_files(name: str, raw: App, place: Place) -> AppSpec:
    """An app of files only: nothing to start, nothing to probe; others are meant to read what it places."""
    assert raw.place is not None
    secrets = secret_values(raw.secrets or {}, place / "secrets")
    files = managed_files(raw.files or [], place / "files", secrets, mode=0o644)
    check_overlaps(files, {}, place)
    return AppSpec(
        name=name,
        version=raw.version or "",
        artifact=artifact_spec(raw.artifact, place / "artifact", secrets) if raw.artifact else None,
        files=files,
        secrets=dict(secrets.values_read),
        salt=_salt(secrets, place),
        places=place_specs(raw.place, place / "place"),
        after=(place / "after").command(raw.after),
        health=HealthSpec(probation=0.0),
        hooks=hooks_spec(raw.hooks, place / "hooks"),
        drift=drift_spec(raw.drift, place / "drift"),
        keep=raw.keep or AppSpec(name="", version="").keep,
    )


def _of_job(name: str, raw: App, job: Job, place: Place) -> AppSpec:
    """A job: nothing to keep running, nothing to probe."""
    secrets = secret_values(raw.secrets or {}, place / "secrets")
    files = managed_files(raw.files or [], place / "files", secrets)
    dirs = directories(raw.dirs, place / "dirs")
    check_overlaps(files, dirs, place)
    hooks = hooks_spec(raw.hooks, place / "hooks")
    if hooks.crashed:
        (place / "hooks" / "crashed").problem("how a job's runs end is in its history", key=True)
    spec = AppSpec(
        name=name,
        version=raw.version or "",
        artifact=artifact_spec(raw.artifact, place / "artifact", secrets) if raw.artifact else None,
        files=files,
        dirs=dirs,
        env=environment(raw.env, (place / "env").seeing(secrets=secrets)),
        secrets=dict(secrets.values_read),
        salt=_salt(secrets, place),
        tasks=task_specs(raw.tasks or {}, place / "tasks"),
        migrate=job_migrations(raw.migrate, place / "migrate", secrets),
        job=job_spec(job, place / "job"),
        needs=tuple(dict.fromkeys(raw.needs or ())),
        health=HealthSpec(probation=0.0),
        hooks=hooks,
        drift=drift_spec(raw.drift, place / "drift"),
        keep=raw.keep or AppSpec(name="", version="").keep,
    )
    check_container(spec, place)
    return spec


def _salt(secrets: Revealed, place: Place) -> str:
    return place.view.secrets.salt if secrets and place.view.secrets else ""


def _version(raw: App, place: Place) -> str:
    if raw.version is None:
        place.missing("version")
        return "0"
    if not _VERSION.fullmatch(raw.version):
        text = f"a version is up to {VERSION_MAX} letters, digits and signs without spaces"
        (place / "version").problem(text)
    return raw.version
