"""The children the keeper has, or had and has not been told to forget.

running  --leader ends with code 0, and is adopted--> headless; --ends otherwise--> ended
headless --another of its tree goes on--> running; --nobody does, or too late--> ended
"""

from __future__ import annotations

import errno
import os
import signal
import time
from functools import partial

from agent.keeper.adopt.adopter import Adopter
from agent.keeper.adopt.background import holders
from agent.keeper.attendant import target
from agent.keeper.confine.init import LAST
from agent.keeper.notify import Notices
from agent.keeper.outlets import Outlets
from agent.keeper.output import Output
from agent.keeper.scribe import Log
from agent.keeper.spawn import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from agent.keeper.link import Link
    from agent.keeper.slots import Slots


DETACH = 5.0  # seconds for a process that was left behind with a slot to get a session of its own
SHORTAGES = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
BIND = 10.0  # seconds for one without a slot to bind a port


class SpawnError(OSError):
    """A child that could not be started: `stage` is the step that failed."""

    def __init__(self, stage: str, code: int, text: str) -> None:
        super().__init__(code, text)
        self.stage = stage


class Child:
    """One child: starting (`report` is open), running, or ended (`code` or `signal` is set).

    `pid` is its leader, `group` the leader's process group. `headless` is the leader's wait status while
    another process that goes on in its place is looked for, `patience` how many seconds that is worth.
    `asked` is who waits to hear that it runs, and the number of that request.
    """

    def __init__(
        self, request: dict[str, Any], slots: Slots, outlets: Outlets, asked: tuple[Link, object],
        stdio: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Fork it; `stdio` are its descriptors 0, 1 and 2, if not ours.

        Raises SpawnError; LookupError, TypeError, ValueError when the request makes no sense.
        """
        self.wanted = [(key, index, name) for key, index, name in request["slots"]]
        descriptors = [slots.descriptor(key, index) for key, index, _ in self.wanted]
        self.name: str = request["child"]
        self.note: str = request["note"]
        log = Log(*request["log"]) if request.get("log") else None
        self.asked = asked
        self.code: int | None = None
        self.signal: int | None = None
        self.started = time.time()
        self.headless: int | None = None
        self.patience = 0.0
        self.group_left = True  # whether somebody of its process group may be there
        self.adopter: Adopter | None = None
        self.held: list[Any] = []  # of its confinement: the parts in force, and why others are not
        self.inner = "pid" in ((request.get("confine") or {}).get("namespaces") or ())
        self.attended = bool(request.get("attended"))
        self.notices: Notices | None = None  # what it says of itself
        self.announces = -1  # the descriptor through which it says that it is ready
        self.told = 0.0  # when the agent was last told of what it says
        announced: list[int] = []
        if request.get("notify") or request.get("announces") or request.get("watchdog"):
            try:
                self.notices = Notices(request.get("notify") or "", float(request.get("watchdog") or 0.0))
                if request.get("announces"):
                    self.announces, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                    announced.append(end)
                    os.set_blocking(end, True)
            except OSError as error:
                raise SpawnError("notify", error.errno or errno.EINVAL, str(error)) from error
        try:
            output, written = os.pipe()
        except OSError as error:
            self._unheard()
            raise SpawnError("pipe", error.errno or errno.EMFILE, str(error)) from error
        try:
            self.pid, self.report = spawn(
                request, (*(() if request.get("adopt") else descriptors), *announced),
                output=written, stdio=stdio,
            )  # fmt: skip
        except OSError as error:
            os.close(output)
            self._unheard()
            spaces = (request.get("confine") or {}).get("namespaces")
            stage = "confine namespaces" if spaces and error.errno not in SHORTAGES else "fork"
            raise SpawnError(stage, error.errno or errno.EAGAIN, str(error)) from error
        finally:
            for end in (written, *announced):
                os.close(end)
        self.session = self.group = self.pid  # spawn makes it the leader of both
        who = f"{request['prefix']}[{self.pid}]"
        keep = partial(outlets.scribe.put, log, who) if log is not None else None
        self.output = Output(output, request["prefix"], outlets.sink, keep)

    def _unheard(self) -> None:
        """There is no child after all."""
        if self.notices is not None:
            self.notices.close()
        if self.announces >= 0:
            os.close(self.announces)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.code is None and self.signal is None

    def follow(self, orphans: Iterable[int]) -> bool:
        """Take one of these processes for its leader, if one goes on in the place of the last.

        If none does yet, `patience` says for how long one still may.
        """
        self.patience = 0.0
        if self.adopter is None or not self.adopter.watching:
            return False
        left = holders(self.adopter.descriptors(), orphans)
        for pid in left:
            try:
                session, group = os.getsid(pid), os.getpgid(pid)
            except ProcessLookupError:
                continue
            if session not in (self.session, os.getsid(0)):
                self.pid, self.group, self.headless, self.group_left = pid, group, None, True
                return True
        if left or not self.adopter.taken:
            self.patience = DETACH if left else BIND
        return False

    def go_on(self, main: int) -> None:
        """Take the process that it named for its leader."""
        self.pid, self.session, self.group, self.group_left = main, os.getsid(main), os.getpgid(main), True

    def ended(self, status: int) -> None:
        """Take its wait status (wait(2))."""
        self.headless = None
        if os.WIFSIGNALED(status):
            self.signal = os.WTERMSIG(status)
        else:
            code = os.WEXITSTATUS(status)
            if self.inner and code > 128:  # the word of its init, which cannot end by a signal
                self.signal = code - 128
            else:
                self.code = code
        self.kill(0)

    def kill(self, number: int, *, group: bool = True) -> bool:
        """Send a signal; whether anybody was there. Raises PermissionError.

        A group's number cannot be anyone else's while it has members; once seen empty, it is left alone.
        """
        if self.attended and number == signal.SIGKILL:
            number = LAST  # whose attendant then kills all there are, and itself
        if group and self.group_left:
            try:
                os.killpg(self.group, number)
                return True
            except ProcessLookupError:  # nobody left; or just forked, and not yet leader of its group
                self.group_left = self.running
        if self.running and self.headless is None:
            os.kill(target(self), number)
        return self.running and self.headless is None

    def record(self) -> dict[str, Any]:
        """Itself as a `ChildRecord`."""
        return {
            "child": self.name,
            "pid": self.pid,
            "started": self.started,
            "note": self.note,
            "code": self.code,
            "signal": self.signal,
            **(dict(zip(("held", "lacking"), self.held, strict=True)) if self.held else {}),
            **(self.adopter.told() if self.adopter is not None else {}),
            **(self.notices.told() if self.notices is not None else {}),
        }


def adopted() -> list[int]:
    """Pids of all direct children, orphans that came to us included; empty where /proc does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []
