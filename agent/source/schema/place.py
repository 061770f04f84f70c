"""A place in the document while it is turned into specs: where mistakes go and what rendering needs."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from agent.kit.templating.meter import TemplateFault
from agent.source.nodes import Node, mark_at
from agent.source.problems import Mark, Path, Problems
from agent.source.templates import Renderer
from agent.source.tree import TreeFault
from agent.source.view import HostView

NAME_MAX = 255  # bytes of one component of a path
PATH_MAX = 1024
WORDS_MAX = 1000
RESERVED = (".release", ".config", ".tmp")  # names the agent uses in an instance directory


@dataclass(frozen=True, slots=True)
class Work:
    """One reading of one document.

    `flat` says that it stood in the flat form, `names` how its paths are called there.
    """

    root: Node
    problems: Problems
    renderer: Renderer
    view: HostView
    names: Mapping[Path, Path] = field(default_factory=lambda: MappingProxyType({}))
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """The value at `path`. `values` are what templates see there."""

    work: Work
    path: Path
    values: Mapping[str, Any]

    def __truediv__(self, part: str | int) -> Place:
        return replace(self, path=(*self.path, part))

    def seeing(self, **values: Any) -> Place:
        """The same place, whose templates see more."""
        return replace(self, values={**self.values, **values})

    @property
    def view(self) -> HostView:
        """The host the state is read for."""
        return self.work.view

    @property
    def sound(self) -> bool:
        """No mistake at, above or below this place."""
        return not self.work.problems.touched(self.path)

    def intact(self, *keys: str) -> bool:
        """No mistake at or below any of these keys."""
        return all((self / key).sound for key in keys)

    def problem(self, message: str, *, key: bool = False) -> None:
        """Note a mistake about the value (or with `key`, about it as a whole, at its key)."""
        self._note(mark_at(self.work.root, self.path, key=key), message)

    def missing(self, key: str, hint: str = "") -> None:
        """Note that a key which must be there is not, unless it is a mistake that hides it."""
        there = self / key
        if not self.work.problems.lost(there.path):
            mark = mark_at(self.work.root, self.path, key=True)
            there._note(mark, f"missing; {hint}" if hint else "missing")

    def _note(self, mark: Mark, message: str) -> None:
        path = self.path
        for length in range(len(path), 0, -1):
            if path[:length] in self.work.names:
                path = self.work.names[path[:length]] + path[length:]
                break
        self.work.problems.mute(self.path)
        self.work.problems.add(mark, path, message)

    def render(self, text: str) -> str:
        """The text with its templates rendered; "" after a mistake was noted, or one hides the values."""
        return self._render(text, self.work.renderer.scalar)

    def render_file(self, text: str) -> str:
        """The same for a text that is the content of a file, which may be longer."""
        return self._render(text, self.work.renderer.text)

    def _render(self, text: str, render: Callable[[str, Mapping[str, Any]], str]) -> str:
        hidden = "vars" in text and self.work.problems.lost(("vars",))
        if self.work.problems.full:  # after a hundred mistakes nobody waits for more
            self.work.problems.more = hidden = True
        if hidden:
            self.work.problems.mute(self.path)
            return ""
        try:
            rendered = render(text, self.values)
        except TemplateFault as fault:
            line = f" (line {fault.line} of the text)" if "\n" in text.strip() else ""
            self.problem(fault.message + line)
            return ""
        if "\0" in rendered:
            self.problem("holds a zero byte")
            return ""
        return rendered

    def command(self, words: Sequence[str] | None) -> tuple[str, ...]:
        """A rendered command: at least a program."""
        if words is None or not self.sound:
            return ()
        if len(words) > WORDS_MAX:
            self.problem(f"more than {WORDS_MAX} words")
            return ()
        command = tuple((self / index).render(word) for index, word in enumerate(words))
        if not self.work.problems.touched(self.path) and (not command or not command[0].strip()):
            self.problem("names no program")
        return command

    def template(self, name: str) -> str:
        """The rendered text of a template file of the repository; mistakes are noted where they are."""
        if self.work.problems.lost(("vars",)):
            return ""
        try:
            return self.work.renderer.file(name, self.values)
        except TreeFault as fault:
            self.problem(str(fault))
        except TemplateFault as fault:
            self.fault_in(name, fault)
        return ""

    def fault_in(self, file: str, fault: TemplateFault) -> None:
        """Note a mistake in a template file that this place names."""
        self._note(Mark(file, fault.line, 1), fault.message)

    def relative(self, text: str) -> str:
        """A path that stays in the directory it is relative to, normalised; "" after a mistake was noted."""
        if not self.sound:
            return ""
        parts = [part for part in text.split("/") if part not in ("", ".")]
        wrong = ""
        if text.startswith("/"):
            wrong = "must be relative, this path is absolute"
        elif ".." in parts:
            wrong = "must stay inside, this path has .."
        elif not parts or text[-1:] == "/":
            wrong = "names no file"
        elif parts[0] in RESERVED:
            wrong = f"{parts[0]} is the agent's own name"
        elif any(not c.isprintable() for c in text):
            wrong = "holds control characters"
        elif len(text) > PATH_MAX or any(len(part.encode()) > NAME_MAX for part in parts):
            wrong = "is too long"
        if wrong:
            self.problem(wrong)
            return ""
        return posixpath.join(*parts)
