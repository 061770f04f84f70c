"""The state file: the document around the apps, and the flat form of one app."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from agent.source.nodes import Entry, Mapping, Node, Scalar, Sequence
from agent.source.problems import Mark, Path
from agent.source.schema.app import App
from agent.source.schema.freeze import Freeze
from agent.source.schema.scalars import Raw

APPS_MAX = 500
APP_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SCHEMA = "1"
FLAT_APP = "app"
FLAT_TARGET = "app.config"
FLAT_TEMPLATES = ("templates/app", "templates/app.j2")

# What the flat form's own names are called once it is spelled out.
FLAT_NAMES: dict[Path, Path] = {
    ("apps", FLAT_APP): (),
    ("apps", FLAT_APP, "version"): ("version",),
    ("apps", FLAT_APP, "artifact", "url"): ("distro-url",),
    ("apps", FLAT_APP, "artifact", "checksum"): ("checksum",),
    ("apps", FLAT_APP, "files", 0, "template"): ("template",),
    ("apps", FLAT_APP, "files", 0, "content"): ("template",),
}


class State(Raw, frozen=True, kw_only=True):
    """What should run, and where."""

    schema: str | None = None
    extends: str | list[str] | None = None
    vars: dict[str, Any] | None = None
    freeze: list[Freeze] | None = None
    apps: dict[str, App] | None = None


class Flat(Raw, frozen=True, kw_only=True):
    """One app, called `app`: a program to download and run, and values for its configuration file."""

    version: str | None = None
    url: str | None = msgspec.field(name="distro-url", default=None)
    checksum: str | None = None
    vars: dict[str, Any] | None = None


def is_flat(root: Mapping) -> bool:
    """Whether a document is in the flat form: no `apps`, but a program's version or URL."""
    return "apps" not in root.entries and bool({"version", "distro-url", "distro_url"} & root.entries.keys())


def spell_out(root: Mapping, template: Mapping | None) -> Mapping:
    """The flat form as the normal one, each value at its own place.

    `template` holds `template` or `content` of app.config; None when it has none.
    """
    at, found = root.mark, root.entries
    app: dict[str, Entry] = {}
    _put(app, "version", found.get("version"))
    artifact = {"archive": _text(at, "none")}
    _put(artifact, "url", found.get("distro-url"))
    _put(artifact, "checksum", found.get("checksum"))
    app["artifact"] = Entry(at, Mapping(at, artifact))
    app["run"] = Entry(at, _mapping(at, command=Sequence(at, [Scalar(at, f"bin/{FLAT_APP}")])))
    app["health"] = Entry(at, _mapping(at, alive=Scalar(at, "2s")))
    if template is not None:
        file = {**template.entries, "target": _text(at, FLAT_TARGET)}
        app["files"] = Entry(at, Sequence(at, [Mapping(at, file)]))
    state = {"apps": Entry(at, _mapping(at, **{FLAT_APP: Mapping(at, app)}))}
    _put(state, "vars", found.get("vars"))
    return Mapping(at, state)


def _put(entries: dict[str, Entry], key: str, entry: Entry | None) -> None:
    if entry is not None:
        entries[key] = entry


def _text(mark: Mark, text: str) -> Entry:
    return Entry(mark, Scalar(mark, text))


def _mapping(mark: Mark, **nodes: Node) -> Mapping:
    return Mapping(mark, {key: Entry(mark, node) for key, node in nodes.items()})
