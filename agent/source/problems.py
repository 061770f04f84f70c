"""What is wrong with a desired state: every mistake with its place, collected, then raised together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from agent.domain.errors import Permanent

PROBLEMS_MAX = 100
SHOWN_MAX = 60  # characters of a foreign word in a message

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file of the state repository; line and column count from 1, 0 means the whole file."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake. `path` is the dotted path of the value ("" for the document itself)."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place} {self.path}: {self.message}" if self.path else f"{place} {self.message}"


class StateInvalid(Permanent):
    """The desired state cannot be used. `problems` holds every mistake, `info.log` the same as lines."""

    def __init__(self, problems: Iterable[Problem], *, more: bool = False) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        lines = [str(p) for p in self.problems]
        count = f"more than {len(lines)} mistakes" if more else f"{len(lines)} mistakes"
        if more:
            lines.append("and more")
        super().__init__(
            "StateInvalid",
            f"{first.path}: {first.message}" if first.path else first.message,
            where=f"{first.file}:{first.line}:{first.column}" if first.line else first.file,
            remedy="correct the state file" + (f"; it has {count}" if len(lines) > 1 else ""),
            log=tuple(lines),
        )


class Problems:
    """Collects mistakes: the first `PROBLEMS_MAX`, and whether there were `more`."""

    def __init__(self) -> None:
        self._found: set[Problem] = set()
        self._lost: set[Path] = set()
        self._touched: set[Path] = set()
        self.more = False

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def full(self) -> bool:
        """Whether further mistakes are left out."""
        return len(self._found) >= PROBLEMS_MAX

    def add(self, mark: Mark, path: Path, message: str) -> None:
        """Note a mistake at `mark`; the value at `path` counts as lost."""
        self.mute(path)
        problem = Problem(printable(mark.file), mark.line, mark.column, dotted(path), message)
        if problem in self._found:
            return
        if self.full:
            self.more = True
        else:
            self._found.add(problem)

    def mute(self, path: Path) -> None:
        """Count the value at `path` as lost: what follows from its absence is no mistake of its own."""
        self._lost.add(path)
        self._touched.update(path[:n] for n in range(len(path) + 1))

    def touched(self, path: Path) -> bool:
        """Whether a mistake lies at `path`, above or below it."""
        return path in self._touched or any(path[:n] in self._lost for n in range(1, len(path)))

    def lost(self, path: Path) -> bool:
        """Whether the value at `path` is not there because of a mistake at it or above it."""
        return any(path[:n] in self._lost for n in range(1, len(path) + 1))

    def sorted(self) -> list[Problem]:
        """The mistakes in the order in which they stand in the files."""
        return sorted(self._found)

    def raise_any(self) -> None:
        """Raise StateInvalid when there is a mistake."""
        if self._found:
            raise StateInvalid(self.sorted(), more=self.more)


def dotted(path: Path) -> str:
    """The path as people write it: apps.web.files[0].target."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{shown(part)}"
    return text.removeprefix(".")


def shown(word: str) -> str:
    """A foreign word as a message may carry it: short, without control characters."""
    cut = word if len(word) <= SHOWN_MAX else word[: SHOWN_MAX - 1] + "…"
    return printable(cut)


def printable(text: str) -> str:
    """The text with control characters spelled out: a message must not drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(word: str, known: Iterable[str]) -> str:
    """Either `, did you mean checksum?` when one of the known words is near, or nothing."""
    found = get_close_matches(word[:SHOWN_MAX], list(known), n=1)
    return f", did you mean {found[0]}?" if found else ""
