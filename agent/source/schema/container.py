"""`driver: oci`: programs in containers, and which other keys have no meaning with them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.domain.spec import AppSpec, ContainerSpec
from agent.source.problems import shown
from agent.source.schema.place import Place

_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")


def container_spec(driver: str | None, hostname: str | None, place: Place) -> ContainerSpec | None:
    """The container of a program; None when it runs on the host."""
    if driver != "oci":
        if hostname is not None:
            (place / "hostname").problem("needs driver: oci", key=True)
        return None
    name = "" if hostname is None else (place / "hostname").render(hostname)
    if hostname is not None and not _HOSTNAME.fullmatch(name):
        (place / "hostname").problem(f"{shown(name)!r} is no name of a host, of at most 64 characters")
    return ContainerSpec(hostname=name)


def check_container(spec: AppSpec, place: Place) -> None:
    """Note each key that programs in containers cannot have."""
    if spec.container is None:
        return
    driver = "run" if spec.run is not None else "job"
    if spec.artifact is None:
        place.missing("artifact", "the root of a container")
    for keys, why in _unfit(spec, driver):
        at = place
        for key in keys:
            at = at / key
        at.problem(f"{why} with driver: oci", key=True)


def _unfit(spec: AppSpec, driver: str) -> Iterator[tuple[tuple[str | int, ...], str]]:
    program = spec.run or spec.job
    assert program is not None
    isolation = program.isolation
    for key in ("private", "connect"):
        if getattr(isolation, key):
            yield (driver, "isolation", key), "has no meaning"
    if set(isolation.namespaces) - {"net"}:
        yield (driver, "isolation", "namespaces"), "can name net alone"
    for index, migration in enumerate(spec.migrate):
        if migration.database and migration.command:
            yield ("migrate", index, "database"), "has no meaning beside a command"
