"""What two specifications of one app differ in, and whether that reaches what runs. Pure."""

from __future__ import annotations

import msgspec

from agent.domain.spec import AppSpec, HealthSpec, ManagedFile, ProbeKind, RunSpec


def changes(old: AppSpec, new: AppSpec) -> list[str]:
    """Names of the top-level parts that differ, versions spelled out."""
    names = []
    for name in AppSpec.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if before == after or name == "salt":
            continue
        if name == "version":
            names.append(f"version {before} -> {after}")
        elif name == "files":
            names += [f"file {f.target}" for f in changed_files(old, new)] or ["files"]
        else:
            names.append(name)
    return names


AGENT_ONLY = (
    "down", "version", "secrets", "health", "canary", "drain", "maintenance", "keep", "hooks", "swap",
    "drift", "needs",
)  # fmt: skip

RUN_AGENT_ONLY = ("instances", "stop", "restart", "reload")


def runtime_changes(old: AppSpec, new: AppSpec) -> bool:
    """Whether the difference reaches the child: its files, program, environment or sockets.

    A version alone is a label: it reaches the child only through what is rendered from it.
    """
    return _runtime(old) != _runtime(new)


def _runtime(spec: AppSpec) -> AppSpec:
    run = spec.run
    if run is not None:
        plain = RunSpec(command=run.command)
        run = msgspec.structs.replace(run, **{name: getattr(plain, name) for name in RUN_AGENT_ONLY})
    default = AppSpec(name=spec.name, version="")
    others = {name: getattr(default, name) for name in AGENT_ONLY}
    if spec.health.kind is ProbeKind.NOTIFY:  # how it is to say so is arranged when it starts
        others["health"] = HealthSpec(kind=spec.health.kind, announces=spec.health.announces)
    return msgspec.structs.replace(spec, run=run, artifact=spec.artifact and spec.artifact.what, **others)


def only_files(old: AppSpec, new: AppSpec) -> bool:
    """Whether, of what reaches the child, only managed files differ."""
    return _runtime(msgspec.structs.replace(old, files=())) == _runtime(
        msgspec.structs.replace(new, files=())
    )


def changed_files(old: AppSpec, new: AppSpec) -> list[ManagedFile]:
    """Files that are new, gone or other than before; of those that are gone what they were."""
    before, after = {f.target: f for f in old.files}, {f.target: f for f in new.files}
    return [
        after.get(target) or before[target]
        for target in sorted(before.keys() | after.keys())
        if before.get(target) != after.get(target)
    ]


def told(changed: list[str]) -> str:
    """The same for people."""
    return f"{', '.join(changed[:4])}{' and more' if len(changed) > 4 else ''} changed"


def same_ports(old: AppSpec, new: AppSpec) -> bool:
    """Whether one gate can serve both."""
    return old.ports == new.ports


def scaled(old: AppSpec, new: AppSpec) -> str:
    """From how many instances to how many; "" when the number is the same."""
    if old.run is None or new.run is None or old.run.instances == new.run.instances:
        return ""
    return f"{old.run.instances} -> {new.run.instances} instances"


def sql_changed(old: AppSpec, new: AppSpec) -> bool:
    """Whether a rendered file is one of a migration's."""
    targets = [file.target for file in changed_files(old, new)]
    return any(target.startswith(m.sql + "/") for m in new.migrate if m.sql for target in targets)
