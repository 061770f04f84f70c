"""A command on a real terminal: a pseudo-terminal whose other end is the test."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

DEADLINE = 60.0


class Terminal:
    """What was shown so far, escape sequences included; and the process."""

    def __init__(self, process: asyncio.subprocess.Process, fd: int) -> None:
        self.process = process
        self.shown = ""
        self._fd = fd

    async def until(self, condition: Callable[[str], object]) -> None:
        """Wait until what was shown is so."""
        async with asyncio.timeout(DEADLINE):
            while not condition(self.shown):
                await asyncio.sleep(0.02)

    async def ended(self) -> int:
        """Wait for the end; the exit code."""
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()

    def type(self, text: str) -> None:
        """Have these keys pressed."""
        os.write(self._fd, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Give it another size; nobody else tells the process, whose controlling terminal it is not."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)


@asynccontextmanager
async def on_terminal(
    words: Sequence[str], environment: dict[str, str], columns: int = 100
) -> AsyncIterator[Terminal]:
    """Run `emptybox` with these words on a terminal of its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("EMPTYBOX_", "CI"))}
    plain |= {"TERM": "xterm-256color", **environment}
    plain.pop("NO_COLOR", None)
    loop = asyncio.get_running_loop()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "agent", *words,
            stdin=theirs, stdout=theirs, stderr=theirs, env=plain, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(theirs)
    terminal = Terminal(process, ours)

    def read() -> None:
        try:
            terminal.shown += os.read(ours, 65536).decode(errors="replace")
        except OSError:  # EIO: nobody has the other end any more
            loop.remove_reader(ours)

    os.set_blocking(ours, False)
    loop.add_reader(ours, read)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        loop.remove_reader(ours)
        os.close(ours)
