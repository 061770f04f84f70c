"""What the agent asks for, and what it is told: one JSON object each.

The order comes in the environment, because what it holds (the database's password) must not be seen in the
list of processes; the answer is the last line of the output.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

VARIABLE = "EMPTYBOX_MIGRATION"
ANSWER = "emptybox-migration: "  # begins the line with the answer
APPLIED_MAX = 5  # names in an answer, so that its line stays shorter than the keeper's longest
NAME_MAX = 100
TEXT_MAX = 700


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One migration of one release.

    `mode` is "up", "down", or "look" (only say how things stand). `sql` is a directory, or "" when `command`
    migrates. `release` is the release's digest, `version` its name for people, `undo` the releases that
    "down" takes back. `timeout` are the seconds the work may take, `wait` those that may pass until others
    are done with this database.
    """

    app: str
    name: str
    kind: str
    release: str
    version: str
    host: str
    database: str
    mode: str = "up"
    sql: str = ""
    command: tuple[str, ...] = ()
    baseline: str = ""
    undo: tuple[str, ...] = ()
    timeout: float = 600.0
    wait: float = 600.0

    @property
    def who(self) -> str:
        """Who does it, for those who wait. PostgreSQL keeps 63 bytes of it."""
        return f"emptybox {self.app}@{self.host}: {self.name} of {self.version}"

    def text(self) -> str:
        """For the environment."""
        return json.dumps(asdict(self))


def read_order(text: str) -> Order:
    """The inverse of `Order.text`."""
    found = json.loads(text)
    for key in ("command", "undo"):
        found[key] = tuple(found[key])
    return Order(**found)


@dataclass(slots=True, kw_only=True)
class Answer:
    """How it ended.

    `outcome` is "done", "later", or that of a `Problem`, which the next four then hold. `applied` are the
    files that this release has changed the database by, now or before; `pending` how many are not done.
    `breaking` has release, version and kind of those, of any host, after which older releases cannot run.
    """

    outcome: str = "done"
    reason: str = ""
    message: str = ""
    remedy: str = ""
    unsure: bool = False
    applied: list[str] = field(default_factory=list)
    pending: int = 0
    breaking: list[list[str]] = field(default_factory=list)

    def line(self) -> str:
        """The last line of the output."""
        shown = asdict(self)
        shown |= {key: shown[key][:TEXT_MAX] for key in ("message", "remedy")}
        shown["breaking"] = self.breaking[-APPLIED_MAX:]
        shown["applied"] = [name[:NAME_MAX] for name in self.applied[-APPLIED_MAX:]]
        return ANSWER + json.dumps(shown, ensure_ascii=False)


def read_answer(lines: list[str] | tuple[str, ...]) -> Answer | None:
    """The answer among the last lines of an output; None of a migration that was killed."""
    for line in reversed(lines):
        if line.startswith(ANSWER):
            try:
                return Answer(**json.loads(line.removeprefix(ANSWER)))
            except (ValueError, TypeError):
                return None
    return None
