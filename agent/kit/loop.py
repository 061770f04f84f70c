"""The agent's event loop: names are looked up in threads of their own.

getaddrinfo(3) may block for half a minute where no name server answers. In the threads that all other work
is done in, a few of those would keep an app from being started.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from agent.kit.executor import Threads

LOOKUPS = 4  # at once; the others wait, as long as who asked does


class Loop(asyncio.SelectorEventLoop):
    """The standard loop, with its threads set apart. One that are few goes on (`Threads`)."""

    def __init__(self) -> None:
        super().__init__()
        self.set_default_executor(Threads(thread_name_prefix="agent"))
        self._names = Threads(LOOKUPS, thread_name_prefix="names")

    async def getaddrinfo(  # noqa: D102 - as in the standard library
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        look = socket.getaddrinfo
        return await self.run_in_executor(self._names, look, host, port, family, type, proto, flags)

    def close(self) -> None:
        """Close; lookups under way are not waited for."""
        self._names.shutdown(wait=False, cancel_futures=True)
        super().close()
