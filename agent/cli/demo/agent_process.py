"""`emptybox run` as a child process, started as a user starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

GRACE = 20.0  # seconds after the first TERM, and again after the second
LAST = 40  # lines of its log that explain an early end


class AgentEnded(Exception):
    """The agent ended, or never began to answer; the message has its last lines."""


def command(flags: Mapping[str, str]) -> list[str]:
    """The command line: the installed command, or the module when there is none beside this Python."""
    installed = Path(sys.executable).with_name("emptybox")
    program = [str(installed)] if os.access(installed, os.X_OK) else [sys.executable, "-P", "-m", "agent"]
    return [*program, "run", *(f"{flag}={value}" for flag, value in flags.items())]


class AgentProcess:
    """A keeper and, under it, the agent. Its output goes to a file.

    It has a session of its own: a Ctrl-C in the terminal reaches only us, who then end it in order.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log
        self._stopping = False

    @classmethod
    async def start(cls, arguments: Sequence[str], log: Path) -> AgentProcess:
        """Start it; its settings come from `arguments` alone."""
        environment = {name: text for name, text in os.environ.items() if not name.startswith("EMPTYBOX_")}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return cls(process, log)

    def last_lines(self, count: int = LAST) -> list[str]:
        """The end of its log."""
        return self._log.read_text(errors="replace").splitlines()[-count:]

    async def guard(self) -> NoReturn:
        """Wait for its end, which must not come unless it was asked for. Raises AgentEnded."""
        code = await self.process.wait()
        if self._stopping:
            await asyncio.Event().wait()
        raise AgentEnded("\n".join([f"the agent ended with {code}; its last lines:", *self.last_lines()]))

    async def stop(self) -> int:
        """End it in order, by force when it takes too long; returns its exit code."""
        self._stopping = True
        for number in (signal.SIGTERM, signal.SIGTERM):  # the second means: at once
            if self.process.returncode is None:
                self.process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    return await self.process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return await self.process.wait()
