"""Rendering what the state repository writes: single values and whole template files.

Most values hold nothing but `{{ version }}` and the like; these are put in by a regular expression, with
the same meaning, so that the template language is not even imported for them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.kit.templating.meter import Limits, TemplateFault
from agent.source.tree import Tree

SECONDS_MAX = 5.0  # processor time of all templates of a state together
FILE_MAX = 128 << 10  # bytes of a template file
OUTPUT_MAX = 32 << 20  # characters of all that is rendered
SCALAR = Limits(source=64 << 10, output=64 << 10, made=1 << 20, steps=20_000, seconds=0.5)
FILE = Limits(source=FILE_MAX)

_NO_SECRETS = "secrets can be used in env, files, migrate.database and the headers of an artifact only"
_TOO_LONG = f"the templates of this state take longer than {SECONDS_MAX:g} s"

# What an app's own maintenance page may show; the values are given when it is shown.
PAGE_NAMES = ("phase", "detail", "percent", "elapsed", "left", "refresh")

_OPENING = re.compile(r"\{[{%#]")
_PLAIN = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*\}\}", re.ASCII)


class Renderer:
    """Renders everything of one state, on one account of time and size."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._seconds = SECONDS_MAX
        self._left = OUTPUT_MAX

    def raw(self, name: str, limit: int) -> bytes:
        """A file of the repository, as it is. Raises TreeFault."""
        return self._tree.read(name, limit)

    def scalar(self, text: str, values: Mapping[str, Any]) -> str:
        """One value, rendered. Raises TemplateFault."""
        if "{" not in text or not _OPENING.search(text):
            return text
        filled = _fill(text, values)
        return self._charged(self._render(text, values, SCALAR) if filled is None else filled)

    def file(self, name: str, values: Mapping[str, Any]) -> str:
        """A template file of the repository, rendered. Raises TreeFault, and TemplateFault with its line."""
        return self.text(self._tree.text(name, FILE_MAX), values)

    def text(self, source: str, values: Mapping[str, Any]) -> str:
        """A template's text, rendered as a file is. Raises TemplateFault."""
        return self._charged(self._render(source, values, FILE) if _OPENING.search(source) else source)

    def page(self, name: str) -> str:
        """The unrendered text of a maintenance page, tried out. Raises TreeFault and TemplateFault."""
        source = self._tree.text(name, FILE_MAX)
        for number in (None, 50):
            values = {"percent": number, "left": number, "refresh": 3}
            self._render(source, dict.fromkeys(PAGE_NAMES, "") | values, FILE)
        return self._charged(source)

    def _charged(self, rendered: str) -> str:
        self._left -= len(rendered)
        if self._left < 0:
            raise TemplateFault(f"all that is rendered is larger than {OUTPUT_MAX >> 20} MiB")
        return rendered

    def _render(self, source: str, values: Mapping[str, Any], limits: Limits) -> str:
        from agent.kit.templating.template import parse  # 3 MiB and 20 ms that many states never need

        before = time.thread_time()
        try:
            if self._seconds <= 0:
                raise TemplateFault(_TOO_LONG)
            template = parse(source, limits)
            if "secrets" in template.names and "secrets" not in values:
                raise TemplateFault(_NO_SECRETS)
            seconds = min(limits.seconds, self._seconds)
            return template.render(values, replace(limits, seconds=seconds))
        except TemplateFault as fault:
            if time.thread_time() - before >= self._seconds:
                raise TemplateFault(_TOO_LONG, fault.line) from None
            raise
        finally:
            self._seconds -= time.thread_time() - before


def render_page(source: str, values: Mapping[str, Any]) -> str:
    """A maintenance page with its values, which are escaped for HTML first. Raises TemplateFault.

    `values` holds every name of `PAGE_NAMES`; percent is a number or None.
    """
    from markupsafe import escape

    from agent.kit.templating.template import parse

    escaped = {k: str(escape(v)) if isinstance(v, str) else v for k, v in values.items()}
    return parse(source, FILE).render(escaped, FILE)


def _fill(text: str, values: Mapping[str, Any]) -> str | None:
    """The text with plain names replaced by their texts; None when it takes more than that."""
    parts: list[str] = []
    end = 0
    for match in _PLAIN.finditer(text):
        value: Any = values
        for name in match[1].split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if not isinstance(value, str):
            return None
        parts += [text[end : match.start()], value]
        end = match.end()
    rest = text[end:]
    if _OPENING.search(rest) or any(_OPENING.search(part) for part in parts[::2]):
        return None
    filled = "".join([*parts, rest])
    return filled if len(filled) <= SCALAR.output else None
