"""The one protocol between keeper and agent: frames of JSON with file descriptors beside them.

A stream socket pair. A frame is a 4-byte big-endian length and that many bytes of JSON (one object);
descriptors travel by SCM_RIGHTS with the first byte of their frame (unix(7)). The agent sends requests
`{"id": n, "do": verb, ...}`; the keeper answers `{"id": n, "ok": {...}}` or `{"id": n, "error": {...}}`
and tells events without being asked: `{"event": "exited", ...}`. An error is text, and where known errno
and stage; a request or an answer with descriptors beside it says how many: `"descriptors": n`.

| verb | arguments | answer |
|---|---|---|
| hello | | version, pid, children, slots, notes, deaths: all the keeper holds; stdio: see spawn |
| spawn | child: see `ChildRequest` | child: its `ChildRecord`, once its program runs |
| signal | child, signal, group | delivered |
| tail | child, lines | lines |
| forget | child | |
| open | key, address, port, count, backlog | slots: a `SlotsRecord` (descriptors beside) |
| close | key | |
| note | key, value (null removes) | |
| ready | | |
| alive | | |
| stopping | deadline (seconds), code | |

| event | content |
|---|---|
| exited | child: its `ChildRecord`, with code or signal |
| changed | child: its `ChildRecord`: it has bound a port (only with `adopt`), or said something of itself |
| ping | whoever gets it says `alive` (only when the service manager has a watchdog) |

Beside `spawn` come no descriptors, or three (a keeper that says `stdio` takes them): the child's 0, 1 and 2.
Signal 0 asks whether anybody is left (kill(2)); a group outlives its leader and can still be signalled.
An answer to `spawn` comes before any event about the child, and a child's last lines are kept before its
end is told. A request that cannot be understood is answered with an error, a frame that cannot is the
end of the agent.

Notes are opaque to the keeper: the agent leaves itself word of what must live exactly as long as
the children and sockets do (which slot is open, which child serves which pair).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from agent.keeper.wire import (
    DESCRIPTORS_MAX,
    FRAME_MAX,
    HEADER,
    KEEPER_FD_VARIABLE,
    MAKES_WAY,
    VERSION,
    Decoder,
    Outbox,
    ProtocolError,
    encode,
    receive,
    send,
)

__all__ = [
    "DESCRIPTORS_MAX",
    "FRAME_MAX",
    "HEADER",
    "KEEPER_FD_VARIABLE",
    "MAKES_WAY",
    "VERSION",
    "ChildRecord",
    "ChildRequest",
    "Decoder",
    "Outbox",
    "ProtocolError",
    "SlotsRecord",
    "encode",
    "receive",
    "send",
]


@dataclass(frozen=True)
class ChildRequest:
    """What to start.

    `environment` is the whole environment: nothing is inherited. `slots` are (key, index, name):
    listening sockets handed over as descriptors 3, 4, ... with LISTEN_FDS, LISTEN_PID and
    LISTEN_FDNAMES set (sd_listen_fds(3)); with `adopt` each takes the place of the socket that the
    program binds to its port by itself (see `agent.keeper.adopt`). `prefix` heads each passed-through
    output line. `log` is a file that keeps the lines (see `agent.keeper.scribe`): its absolute path, the
    bytes it may grow to, and how many such files there may be, older ones included. `note` is kept
    with the child for the agent. `notify` is the address it is heard at (see `agent.keeper.notify`; the
    agent sets NOTIFY_SOCKET), `announces` gives it a descriptor behind its sockets, to say by a newline
    that it is ready, `watchdog` is how many seconds it may give no sign of life after that, 0: for ever.
    uid and gid None mean the keeper's own; `groups` matters only beside a uid. A program without a slash is
    looked up in the PATH of `environment`.

    `attended`: whatever it has started, wherever that went, is killed once it has ended (see
    `agent.keeper.confine.init`). `terminal`: its descriptor 0 becomes its controlling terminal.

    `nice` and `oom` (oom_score_adj, proc(5)) None: the keeper's own. `rlimits` are setrlimit(2)'s names
    without RLIMIT_, with -1 for none; no core is dumped if none is given. `cgroups` are directories of
    control groups to be put into. `confine` is an order as `agent.keeper.confine.orders` has it.

    `container`, if anything is in it, says that the program is a container's, made of the bundle that
    `directory` is (see `agent.keeper.container`; `argv` is empty then, and in the bundle's config.json):

    | key | meaning |
    |---|---|
    | runtime | absolute path of runc, or of what has its command line |
    | name | of the container |
    | descriptors | how many it gets from 3 on |
    | held, lacking | what is told of its isolation, as in a `ChildRecord` |
    | overlay | options of the root's mount (the kernel's overlayfs), "" for a root that is there |
    """

    child: str
    argv: list[str]
    environment: dict[str, str]
    directory: str
    prefix: str = ""
    uid: int | None = None
    gid: int | None = None
    groups: list[int] = field(default_factory=list)
    umask: int = 0o022
    nice: int | None = None
    oom: int | None = None
    rlimits: dict[str, int] = field(default_factory=dict)
    cgroups: list[str] = field(default_factory=list)
    confine: dict[str, Any] = field(default_factory=dict)
    container: dict[str, Any] = field(default_factory=dict)
    slots: list[tuple[str, int, str]] = field(default_factory=list)
    adopt: bool = False
    note: str = ""
    log: tuple[str, int, int] | None = None
    notify: str = ""
    announces: bool = False
    watchdog: float = 0.0
    attended: bool = False
    terminal: bool = False

    def as_json(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class ChildRecord:
    """A child as the keeper knows it. code and signal are None while it runs; started is epoch seconds.

    Of one that is adopted: `taken` are the names of slots it has now, `others` other TCP ports it has
    bound (the first few), `trouble` is why one of its calls could not be dealt with.

    Of one that says something of itself: how often it was `ready`, whether it is `reloading` or `stopping`,
    its `status` in words, until when it asked for time (`extended`, epoch seconds), and whether it fell
    `silent`, for which it is ended.

    Of one that is confined: `held` are the parts in force, `lacking` those that are not, with the reason.
    """

    child: str
    pid: int
    started: float
    note: str
    code: int | None = None
    signal: int | None = None
    taken: list[str] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    trouble: str = ""
    ready: int = 0
    reloading: bool = False
    stopping: bool = False
    status: str = ""
    extended: float = 0.0
    silent: bool = False
    held: list[str] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.code is None and self.signal is None


@dataclass(frozen=True)
class SlotsRecord:
    """A group of listening sockets the keeper holds: one SO_REUSEPORT group on address and port."""

    key: str
    address: str
    port: int
    count: int
