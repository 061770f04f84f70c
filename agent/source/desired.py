"""The desired state of one commit, for one host: found, read, merged, checked, rendered.

Everything here blocks (files, parsing, rendering) and is called in a thread. The order:

    find and read, bounded (document) -> merge what `extends` names (merge) -> decode (schema.decode)
    -> select by `only` -> render and convert each app (schema.app) -> compare the apps with one another

Mistakes of all stages are collected and raised together. The shape of every app is checked on every
host; its templates and their meaning only where it is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path as FilePath

from agent.domain.errors import FailureInfo
from agent.domain.freeze import FreezeSpec
from agent.domain.spec import AppSpec
from agent.source.merge import Document, read_state
from agent.source.nodes import Entry, Mapping, Scalar, mark_at
from agent.source.problems import Mark, Problem, Problems, StateInvalid, shown
from agent.source.schema.app import App, app_spec
from agent.source.schema.decode import decode
from agent.source.schema.freeze import freezes
from agent.source.schema.needs import check_needs
from agent.source.schema.place import Place, Work
from agent.source.schema.placed import refuse_shared_places
from agent.source.schema.secrets import SecretRefused
from agent.source.schema.state import (
    APP_NAME,
    APPS_MAX,
    FLAT_NAMES,
    FLAT_TEMPLATES,
    SCHEMA,
    Flat,
    State,
    is_flat,
    spell_out,
)
from agent.source.schema.traffic import ANYWHERE
from agent.source.templates import FILE_MAX, Renderer
from agent.source.tree import NotThere, Tree, TreeFault
from agent.source.view import HostView

__all__ = ["HostView", "Loaded", "Problem", "StateInvalid", "load", "validate", "validate_all", "views"]

VIEWS_MAX = 200
NO_CHECKSUM = "the artifact has no checksum: whatever the server sends will run; add `checksum`"
LOCAL_LEDGER = "without `database` every host runs it, and only this host knows that it ran"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is wanted on one host. `apps` keep the file's order; `file` is the state file or directory.

    `refused` are apps that cannot be read for now, because a secret is not to be had.
    """

    apps: dict[str, AppSpec]
    warnings: tuple[str, ...]
    file: str
    freezes: tuple[FreezeSpec, ...] = ()
    refused: dict[str, FailureInfo] = field(default_factory=dict)


def load(tree: FilePath, path: str, view: HostView, *, image: FilePath | None = None) -> Loaded:
    """Read the desired state in the exported repository `tree`. Blocks.

    Args:
        tree: root of the exported repository.
        path: the state file or a directory of such, in the repository; "" for state.yaml, .yml or .json.
        view: the host it is read for.
        image: directory where the flat form's template is looked for when the repository has none.

    Raises StateInvalid with every mistake.
    """
    problems = Problems()
    reading = _Reading(Tree(tree), view, problems, Tree(image) if image else None)
    loaded = reading.run(path)
    problems.raise_any()
    assert loaded is not None, "a state that is not there is a mistake that was noted"
    return loaded


def validate(tree: FilePath, path: str, view: HostView, *, image: FilePath | None = None) -> list[Problem]:
    """Every mistake that `load` would raise, in the order of the files; empty when there is none. Blocks."""
    try:
        load(tree, path, view, image=image)
    except StateInvalid as error:
        return list(error.problems)
    return []


def views(tree: FilePath, path: str, view: HostView) -> list[HostView]:
    """The hosts that `only` tells apart: `view` with every combination of label values mentioned. Blocks.

    Beyond `VIEWS_MAX` combinations each value occurs at least once. A state that cannot be read has the
    one view given.
    """
    document = read_state(Tree(tree), path, ignored := Problems())
    if document is None or is_flat(document.root):
        return [view]
    state = decode(document.root, State, (), ignored) or State()
    mentioned: dict[str, dict[str, None]] = {}
    for app in (state.apps or {}).values():
        for label, values in (app.only or {}).items():
            found = mentioned.setdefault(label, {})
            found.update(dict.fromkeys([values] if isinstance(values, str) else values))
    choices = [list(values) for values in mentioned.values() if values]
    names = [label for label, values in mentioned.items() if values]
    if prod(map(len, choices)) <= VIEWS_MAX:
        rows = [list(row) for row in product(*choices)]
    else:
        longest = min(VIEWS_MAX, max(map(len, choices)))
        rows = [[values[n % len(values)] for values in choices] for n in range(longest)]
    return [replace(view, labels={**view.labels, **dict(zip(names, row, strict=True))}) for row in rows]


def validate_all(
    tree: FilePath, path: str, view: HostView, *, image: FilePath | None = None
) -> list[Problem]:
    """Every mistake on any of the `views`. Blocks."""
    found: set[Problem] = set()
    for each in views(tree, path, view):
        found.update(validate(tree, path, each, image=image))
    return sorted(found)


class _Reading:
    """One `load`."""

    def __init__(self, tree: Tree, view: HostView, problems: Problems, image: Tree | None) -> None:
        self._tree = tree
        self._view = view
        self._problems = problems
        self._image = image
        self._warnings: list[str] = []
        self._refused: dict[str, FailureInfo] = {}

    def run(self, path: str) -> Loaded | None:
        document = read_state(self._tree, path, self._problems)
        if document is None:
            return None
        flat = is_flat(document.root)
        root = self._spelled_out(document) if flat else document.root
        state = decode(root, State, (), self._problems) or State()
        names = FLAT_NAMES if flat else {}
        work = Work(root, self._problems, Renderer(self._tree), self._view, names, flat)
        place = Place(work, (), {**self._view.values(), "vars": state.vars or {}})
        if state.schema not in (None, SCHEMA):
            text = f"schema {shown(str(state.schema))} is not known; this agent reads schema {SCHEMA}"
            (place / "schema").problem(text)
        if state.apps is None and place.intact("extends"):
            place.missing("apps", "write `apps: {}` when nothing should run")
        apps = self._apps(state.apps or {}, place / "apps")
        for name, app in apps.items():
            local = [m.name for m in app.migrate if not m.database]
            if local:
                self._warnings.append(f"apps.{name}.migrate: {', '.join(local)}: {LOCAL_LEDGER}")
        windows = freezes(state.freeze or [], place / "freeze")
        return Loaded(apps, tuple(self._warnings), document.file, windows, self._refused)

    def _apps(self, raw: MappingType[str, App], place: Place) -> dict[str, AppSpec]:
        if len(raw) > APPS_MAX:
            place.problem(f"more than {APPS_MAX} apps", key=True)
            return {}
        apps: dict[str, AppSpec] = {}
        for name, app in raw.items():
            at = place / name
            if not APP_NAME.fullmatch(name):
                text = "an app's name is up to 63 small letters, digits and -, with no - at its ends"
                at.problem(text, key=True)
            elif self._wanted(app, at):
                try:
                    apps[name] = app_spec(name, app, at)
                except SecretRefused as refused:
                    self._refused[name] = refused.info
        _refuse_ports(apps, raw, place)
        check_needs(raw, place)
        refuse_shared_places(apps, place)
        return apps

    def _wanted(self, app: App, place: Place) -> bool:
        for label, values in (app.only or {}).items():
            if not values and place.intact("only"):
                (place / "only" / label).problem("lists no value: no host would have the app")
        return self._view.selected(app.only)

    def _spelled_out(self, document: Document) -> Mapping:
        """The flat form in the normal one, its own mistakes noted under its own names."""
        root = document.root
        decode(root, Flat, (), self._problems)
        for normal, own in FLAT_NAMES.items():
            if own and self._problems.lost(own):
                self._problems.mute(normal)
        sound = {key: entry for key, entry in root.entries.items() if not self._problems.lost((key,))}
        if "checksum" not in root.entries and "distro-url" in root.entries:
            mark = mark_at(root, ("distro-url",), key=True)
            self._warnings.append(f"{mark.file}:{mark.line}:{mark.column} distro-url: {NO_CHECKSUM}")
        return spell_out(replace(root, entries=sound), self._flat_template(document.file))

    def _flat_template(self, file: str) -> Mapping | None:
        """Where the text of app.config is: in the repository, or else in the image."""
        for name in FLAT_TEMPLATES:
            try:
                if self._tree.exists(name):
                    mark = Mark(name)
                    return Mapping(mark, {"template": Entry(mark, Scalar(mark, name))})
                if self._image is not None:
                    mark = Mark(f"{name} of the image")
                    text = self._image.text(name.removeprefix("templates/"), FILE_MAX)
                    return Mapping(mark, {"content": Entry(mark, Scalar(mark, text))})
            except NotThere:
                continue
            except TreeFault as fault:
                self._problems.add(Mark(file), ("template",), f"{name} {fault}")
        return None


def _refuse_ports(apps: MappingType[str, AppSpec], raw: MappingType[str, App], place: Place) -> None:
    """Note each port that is not for apps, or that an app before has.

    Two are one when number and address are, or when one address stands for all.
    """
    ports = place.view.ports
    # protocol, port and address ("" for any and "*" for all) to the first app
    taken: dict[tuple[str, int, str], str] = {}
    for name, spec in apps.items():
        for kind, port in (*(("", port) for port in spec.listen), *(("udp ", port) for port in spec.udp)):
            here = place / name / "listen"
            here = here / port.name if isinstance(raw[name].listen, dict) else here
            if ports and not any(port.port in some for some in ports):
                here.problem(
                    f"port {port.port} is not one that this host's settings give to apps (--allow-port)"
                )
            wide = port.address in ANYWHERE
            for host, number in place.view.own:
                if port.port == number and not kind and (wide or host in (*ANYWHERE, port.address)):
                    here.problem(f"port {number} is the agent's own")
            others = [taken.get((kind, port.port, key)) for key in (("",) if wide else ("*", port.address))]
            other = next((other for other in others if other not in (None, name)), None)
            if other is not None:
                mark = mark_at(place.work.root, (*place.path, other, "listen"))
                here.problem(
                    f"{name} and {other} ({mark.file}:{mark.line}) both listen on {kind}port {port.port}"
                )
            for key in ("", "*" if wide else port.address):
                taken.setdefault((kind, port.port, key), name)
