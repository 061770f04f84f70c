"""Whether a state that a power cut left is as it should be, before any agent has touched it.

The journal opens, and tells nothing false; `current` and `good` name whole deployments; what has a name in
the store is what was unpacked; what is told of databases is in them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from agent.deploy.deployments import Deployment, Deployments
from agent.deploy.journal_schema import connect
from agent.deploy.layout import AppDirectory, DataDirectory
from agent.domain.errors import Failure
from tests.crash.disk import Tree
from tests.crash.record import Record

WHOLE = ("store/trees", "apps/*/generations", "apps/*/deployments")  # what has a name there is whole
Whole = dict[str, dict[str, str]]  # by the path of each such directory: what is in it


class Judge:
    """Looks at states, each put where the agent's data are. Records tell what is right."""

    def __init__(self, heard: Record, *earlier: Record) -> None:
        self._known: Whole = {}
        for one in (heard, *earlier):
            for tree in (one.base, one.full):
                self._known.update(_whole(tree.flat()))
        self._expected = "journal.db" in heard.base.flat()
        self._apps = set(_links(heard.base, "current"))
        self._wanted = set(_links(heard.full, "current"))

    def look(self, data: Path, flat: dict[str, str], currents: Sequence[str] = ()) -> list[str]:
        """What is wrong with a state (see `Tree.flat`) that is at `data`, before any agent has touched it.

        `currents` are the spec digests that `current` was made to lead to until then, in this order.
        """
        whole = _whole(flat)
        found = [f"{path} is not whole" for path, entry in whole.items() if self._torn(path, entry)]
        try:
            connection, lost = connect(data / "journal.db", expected=self._expected)
        except Failure as error:
            return [*found, f"the journal cannot be opened: {error}"]
        try:
            if lost is not None:
                found.append(f"the journal is {lost.reason}")
            verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
            found += [] if verdict == "ok" else [f"the journal: {verdict}"]
            directory = DataDirectory(data)
            for app in sorted(path.name for path in directory.apps.glob("*")):
                found += self._app(directory.app(app), connection, flat, whole, currents)
        finally:
            connection.close()
        return found

    def _torn(self, path: str, entry: dict[str, str]) -> bool:
        return path in self._known and not path.startswith("apps/") and entry != self._known[path]

    def _app(
        self,
        directory: AppDirectory,
        journal: sqlite3.Connection,
        flat: dict[str, str],
        whole: Whole,
        currents: Sequence[str],
    ) -> list[str]:
        app, deployments = directory.name, Deployments(directory)
        current, good = deployments.linked("current"), deployments.linked("good")
        found = []
        if current is None and app in self._apps and f"apps/{app}/current" in flat:
            found.append(f"{app}: current leads to nothing whole")
        if good is None and f"apps/{app}/good" in flat:
            found.append(f"{app}: good leads to nothing whole")
        for one in (current, good):
            found += self._deployment(one, whole) if one is not None else []
        found += [
            f"{app}: deployment {one.pair.spec} lacks {part}"
            for one in deployments.all()
            for part, wanted in (("release", one.pair.release), ("config", one.pair.generation))
            if wanted and not (one.path / part).is_symlink()
        ]
        found += _undone(app, journal, directory.root)
        last = journal.execute(
            "SELECT result, spec FROM runs WHERE app = ? ORDER BY seq DESC LIMIT 1", (app,)
        ).fetchone()
        if last is not None and last[0] in ("succeeded", "probation") and (current or app in self._wanted):
            serves = current.pair.spec if current is not None else "nothing"
            going_back = last[0] == "probation" and last[1] in currents and currents[-1] == serves
            if serves != last[1] and not going_back:
                found.append(f"{app}: a run {last[0]} with {last[1]}, current is {serves}")
        return found

    def _deployment(self, one: Deployment, whole: Whole) -> list[str]:
        """Whether all that a deployment consists of is as it was written."""
        app = one.spec.name
        parts = [f"store/trees/{one.pair.release}"] if one.pair.release else []
        parts += [f"apps/{app}/generations/{one.pair.generation}"] if one.pair.generation else []
        return [f"{app}: {part} is not whole" for part in parts if whole.get(part) != self._known.get(part)]


def _undone(app: str, journal: sqlite3.Connection, root: Path) -> list[str]:
    """Whether a database lacks what the ledger says was done to it; each migration here is one file."""
    done = journal.execute(
        "SELECT count(*) FROM migrations WHERE app = ? AND word = 'done'", (app,)
    ).fetchone()[0]
    if not done:
        return []
    there = 0
    for path in root.glob("dirs/*/*.db"):
        database = sqlite3.connect(path)
        try:
            there += database.execute("SELECT count(*) FROM emptybox_history").fetchone()[0]
        finally:
            database.close()
    return [] if there >= done else [f"{app}: {done} migrations are told as done, the databases have {there}"]


def _links(tree: Tree, name: str) -> dict[str, str]:
    return {path.split("/")[1]: what for path, what in tree.flat().items() if path.endswith(f"/{name}")}


def _whole(flat: dict[str, str]) -> Whole:
    """What is in each directory that counts as whole once it has its name."""
    found: Whole = {}
    for path, what in flat.items():
        parts = path.split("/")
        depth = 3 if parts[0] == "store" else 4
        place = parts[: depth - 1]
        if len(parts) >= depth and any(Path(*place).match(pattern) for pattern in WHOLE):
            name = parts[depth - 1]
            if not name.startswith(".") and not name.endswith("-again"):
                found.setdefault("/".join(parts[:depth]), {})["/".join(parts[depth:])] = what
    return found
