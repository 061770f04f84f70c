"""The terminal somebody sits at, passed on key by key to a command that runs elsewhere."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

READ = 4096
SIZE = (24, 80)  # rows and columns of one that does not say


class Typing:
    """Takes a terminal for the time of a `with`: nothing typed there is echoed, nor becomes a signal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] = []
        self._handler: Any = None
        self._stirred, self._stir = -1, -1

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._fd)
        self._stirred, self._stir = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._handler = signal.signal(signal.SIGWINCH, lambda *_: os.write(self._stir, b"x"))
        tty.setraw(self._fd, termios.TCSADRAIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        signal.signal(signal.SIGWINCH, self._handler)

    @property
    def terminal(self) -> dict[str, Any]:
        """What it is like, as POST /exec has it."""
        return {**self._size(), "kind": os.environ.get("TERM") or "dumb"}

    def lines(self) -> Iterator[bytes]:
        """What is typed, and each new size, as POST /exec has it; for another thread."""
        while True:
            ready, _, _ = select.select([self._fd, self._stirred], [], [])
            told: dict[str, Any] = {}
            if self._stirred in ready:
                os.read(self._stirred, READ)
                told = self._size()
            if self._fd in ready:
                data = os.read(self._fd, READ)
                if not data:
                    return
                told["in"] = base64.b64encode(data).decode()
            yield json.dumps(told).encode() + b"\n"

    def _size(self) -> dict[str, int]:
        try:
            columns, rows = os.get_terminal_size(self._fd)
        except OSError:
            rows, columns = 0, 0
        return {"rows": rows or SIZE[0], "columns": columns or SIZE[1]}
