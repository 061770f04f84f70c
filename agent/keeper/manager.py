"""The service manager above the keeper, told how things are: sd_notify(3), as systemd understands it.

It hears that the box is ready once an agent says so, that it ends and how long that may take, and, when
it asks for that (WatchdogSec=), that the keeper's loop turns. Whether the agent's loop turns is the
keeper's own concern (`agent.keeper.vigil`): a service manager could only restart everything.

The messages come from the keeper, a unit's main process, so that NotifyAccess=main is enough and no
application can speak in our name. Without NOTIFY_SOCKET nobody is told, and nothing is asked.
"""

from __future__ import annotations

import contextlib
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

SEND_DEADLINE = 1.0  # seconds a manager that does not read may hold the keeper up


class Manager:
    """Who started us, if they want to hear. `watchdog` is how often at least, in seconds; 0: never."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take what is meant for us out of the environment: nobody else shall find it there."""
        self._address = environment.pop("NOTIFY_SOCKET", "")
        asked, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        ours = bool(self._address) and pid in ("", str(os.getpid()))
        self.watchdog = int(asked) / 1e6 if ours and asked.isdigit() else 0.0
        self._ready = False

    def ready(self) -> None:
        """All is up: told once."""
        if not self._ready:
            self._ready = self._tell("READY=1")

    def stopping(self, deadline: float = 0.0) -> None:
        """The end has begun, and may take so many seconds whatever the unit's TimeoutStopSec= says."""
        self._tell("STOPPING=1" + (f"\nEXTEND_TIMEOUT_USEC={deadline * 1e6:.0f}" if deadline else ""))

    def alive(self) -> None:
        """The keeper's loop turns."""
        self._tell("WATCHDOG=1")

    def _tell(self, message: str) -> bool:
        if not self._address:
            return False
        where = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SEND_DEADLINE)
            sock.sendto(message.encode(), where)
            return True
        return False
