"""The agent's log: the standard library's, one line a record, as text or as JSON.

    2026-11-21T07:38:18.123Z info    web: switch done in 3 ms  [run=run-0abc sync=sync-0abb]

Which sync, run and app a line belongs to is bound once (`bind`) and travels with the asyncio task.
Every line passes the registry of secrets, exceptions included; control characters are shown, not sent.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TextIO

import msgspec

from agent.kit.clock import rfc3339
from agent.kit.mask import Masker, secrets
from agent.kit.outflow import Outflow

LINE_MAX = 16 << 10  # characters; a longer line is cut

_bound: ContextVar[Mapping[str, str]] = ContextVar("emptybox_log", default=MappingProxyType({}))
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


@contextmanager
def bind(**ids: str) -> Iterator[None]:
    """Lines logged inside, by this task and those it starts, carry these ids: sync, run, app."""
    token = _bound.set({**_bound.get(), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        _bound.reset(token)


def shown(text: str) -> str:
    """`text` on one line, control characters escaped, so that nobody writes lines in our name."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Formatter(logging.Formatter):
    def __init__(self, masker: Masker) -> None:
        super().__init__()
        self._masker = masker

    def _message(self, record: logging.LogRecord) -> str:
        return self._masker.text(record.getMessage())[:LINE_MAX]

    def _trace(self, record: logging.LogRecord) -> str:
        text = self.formatException(record.exc_info) if record.exc_info else ""
        return self._masker.text(text)[:LINE_MAX]


class TextFormatter(_Formatter):
    """Lines for people. A traceback follows its line, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        ids = " ".join(f"{name}={value}" for name, value in _bound.get().items())
        line = f"{rfc3339(record.created)} {record.levelname.lower():7} {shown(self._message(record))}"
        if record.levelno >= logging.WARNING or record.exc_info:
            line += f"  ({record.name})"
        if ids:
            line += f"  [{ids}]"
        for trace in self._trace(record).splitlines():
            line += f"\n    {shown(trace)}"
        return line


class JsonFormatter(_Formatter):
    """One JSON object a line: at, level, logger, message, the bound ids, error with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        line = {
            "at": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
            **_bound.get(),
        }
        if record.exc_info:
            line["error"] = self._trace(record)
        return msgspec.json.encode(line).decode()


def setup(
    style: str = "text", level: str = "info", stream: TextIO | Outflow | None = None, masker: Masker = secrets
) -> logging.Handler:
    """Make the root logger write to `stream` (standard error). Returns the handler, for taking it off again.

    Args:
        style: "text" or "json".
        level: debug, info, warning or error.
        stream: where lines go.
        masker: what is kept out of them.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(masker) if style == "json" else TextFormatter(masker))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h.formatter, _Formatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for chatty in ("asyncio", "aiohttp", "dulwich", "urllib3"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    return handler
