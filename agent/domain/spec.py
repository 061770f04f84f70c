"""One app as it is wanted on this host: resolved, rendered, with every default filled in.

The raw schema of the state repository (its sugar, unions and merge rules) lives in
`agent.source.schema`; what leaves it is an `AppSpec`. Durations are seconds, sizes are bytes.
Frozen msgspec structs: comparable, and canonically encodable for the spec digest.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

from agent.domain.artifact_spec import ArtifactSpec


class Swap(StrEnum):
    """How a new child takes over from the old one."""

    OVERLAP = "overlap"  # both run; traffic moves when the new one is healthy
    RESTART = "restart"  # the old one stops first


class SocketMode(StrEnum):
    """How an app gets its listening socket."""

    ADOPT = "adopt"  # the app binds the port by itself, and gets a slot in the place of its socket
    FD = "fd"  # LISTEN_FDS, see sd_listen_fds(3)
    RELAY = "relay"  # the app binds a private $PORT, the agent relays
    OWN = "own"  # no ports; or, where nothing else is to be had, the app has them alone: Swap.RESTART

    @property
    def slots(self) -> bool:
        """Whether the app serves on sockets that the keeper holds."""
        return self in (SocketMode.ADOPT, SocketMode.FD)


class OnChange(StrEnum):
    """What a change of a managed file does to the running child."""

    RELOAD = "reload"
    RESTART = "restart"
    NONE = "none"


class ProbeKind(StrEnum):
    """What one health check does."""

    HTTP = "http"
    TCP = "tcp"
    EXEC = "exec"
    ALIVE = "alive"
    NOTIFY = "notify"  # it says so: sd_notify(3), or a newline on a descriptor


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all parts: frozen, keyword only."""


class ReloadSpec(Spec, frozen=True, kw_only=True):
    """How a child is told to read its files again: a signal, or a command."""

    signal: str = "HUP"
    command: tuple[str, ...] = ()


class ManagedFile(Spec, frozen=True, kw_only=True):
    """One rendered file of a config generation."""

    target: str  # relative path inside the generation, normalised
    content: bytes
    mode: int = 0o640
    on_change: OnChange = OnChange.RESTART
    reload: ReloadSpec | None = None  # instead of the program's own way, for OnChange.RELOAD
    check: tuple[str, ...] = ()
    secret: bool = False  # it holds secrets


class StopSpec(Spec, frozen=True, kw_only=True):
    """How a child is asked to stop."""

    signal: str = "TERM"
    grace: float = 10.0


class RestartSpec(Spec, frozen=True, kw_only=True):
    """Bounds of restarting a child that ended by itself."""

    backoff: float = 0.5  # first delay
    backoff_max: float = 30.0
    budget: int = 5  # restarts allowed within `window`
    window: float = 60.0
    cooldown: float = 300.0  # pause once the budget is spent


class LimitsSpec(Spec, frozen=True, kw_only=True):
    """What a program and all it starts may use together, by control groups; 0 = no limit."""

    memory: int = 0  # bytes
    cpus: float = 0.0
    pids: int = 0
    read: int = 0  # bytes a second, of the disk that has the data directory
    write: int = 0


class IsolationSpec(Spec, frozen=True, kw_only=True):
    """What is kept from a program. Paths are absolute; they count in the tier strict."""

    tier: str = ""  # "strict", "standard", "none"; "" = the agent's default, and what it can have of it
    namespaces: tuple[str, ...] = ()  # "pid", "ipc", "net"
    private: tuple[str, ...] = ()  # "tmp", "dev"
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    connect: tuple[int, ...] | None = None  # TCP ports; None = all


class ContainerSpec(Spec, frozen=True, kw_only=True):
    """A program runs in a container, whose root is the release with the rendered files over it."""

    hostname: str = ""  # "" = what the release says, or the app's name


class RunSpec(Spec, frozen=True, kw_only=True):
    """The long-running program."""

    command: tuple[str, ...]
    user: str = ""  # "" = the agent's own user; "dynamic" = one that nobody else is
    instances: int = 1  # side by side, with one port
    group: str = ""  # "" = the user's own
    umask: int = 0o022
    nice: int | None = None
    oom: int | None = None  # oom_score_adj
    rlimits: dict[str, int] = {}  # setrlimit(2)'s names without RLIMIT_; -1 = none
    limits: LimitsSpec = LimitsSpec()
    isolation: IsolationSpec = IsolationSpec()
    container: ContainerSpec | None = None  # None = it runs on the host
    stop: StopSpec = StopSpec()
    restart: RestartSpec = RestartSpec()
    reload: ReloadSpec = ReloadSpec()
    watchdog: float = 0.0  # seconds it may give no sign of life (sd_notify(3)); 0 = for ever


class JobSpec(Spec, frozen=True, kw_only=True):
    """A program that runs to its end: when its time comes, after a release, or when somebody asks."""

    command: tuple[str, ...]
    schedule: str = ""  # cron, see `agent.domain.cron`; "" = only when asked for, and after a release
    time_zone: str = "UTC"
    after_release: bool = False
    overlap: bool = False  # whether a run may begin while another is under way
    missed: str = "once"  # "once": one run makes up for all that nobody was there for; "skip": none does
    retries: int = 0  # further attempts of a run that failed
    backoff: float = 10.0  # before the second attempt; doubles from one to the next
    timeout: float = 3600.0  # of one attempt
    parameters: dict[str, str] = {}  # names and defaults of variables that may be given with a run
    user: str = ""
    stop: StopSpec = StopSpec()
    limits: LimitsSpec = LimitsSpec()
    isolation: IsolationSpec = IsolationSpec()
    container: ContainerSpec | None = None


class PortSpec(Spec, frozen=True, kw_only=True):
    """One public port, of TCP if nothing else is said."""

    name: str
    port: int
    address: str = "0.0.0.0"


class HealthSpec(Spec, frozen=True, kw_only=True):
    """The probe and the verdict's rules."""

    kind: ProbeKind = ProbeKind.ALIVE
    path: str = "/"
    port: str = ""  # name of the port; "" = the first
    command: tuple[str, ...] = ()
    announces: bool = False  # ProbeKind.NOTIFY: by a newline on a descriptor
    alive: float = 2.0  # ProbeKind.ALIVE: healthy after having lived this long
    interval: float = 0.5
    timeout: float = 2.0
    successes: int = 1
    failures: int = 3  # consecutive failures after the switch that make the verdict unhealthy
    deadline: float = 30.0
    probation: float = 30.0


class TaskSpec(Spec, frozen=True, kw_only=True):
    """A command of the operator's, hung into the task graph."""

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    timeout: float = 60.0
    retries: int = 0


class MigrationKind(StrEnum):
    """When a migration runs, and who can run on what it leaves behind."""

    EXPAND = "expand"  # beside the old version; both can run on it
    CONTRACT = "contract"  # after probation; older versions cannot run on it
    EXCLUSIVE = "exclusive"  # nobody runs meanwhile; both can run on it
    REVERSIBLE = "reversible"  # nobody runs meanwhile; older versions can once its down has run
    IRREVERSIBLE = "irreversible"  # nobody runs meanwhile; older versions cannot run on it

    @property
    def alone(self) -> bool:
        """Whether the app is down while it runs."""
        return self in (MigrationKind.EXCLUSIVE, MigrationKind.REVERSIBLE, MigrationKind.IRREVERSIBLE)

    @property
    def breaking(self) -> bool:
        """Whether older versions cannot run on what it leaves behind."""
        return self in (MigrationKind.CONTRACT, MigrationKind.REVERSIBLE, MigrationKind.IRREVERSIBLE)


class MigrationSpec(Spec, frozen=True, kw_only=True):
    """What has to be done to data: a command, or a directory of SQL files; one of the two."""

    name: str
    command: tuple[str, ...] = ()
    sql: str = ""  # relative path of the directory
    database: str = ""  # URL of what is migrated, which has the ledger then; "" = the ledger is the agent's
    kind: MigrationKind = MigrationKind.EXPAND
    down: tuple[str, ...] = ()  # takes a reversible command back
    baseline: str = ""  # what a database without a history holds already
    timeout: float = 600.0


class CanarySpec(Spec, frozen=True, kw_only=True):
    """A share of the new connections for the new version, before it gets all of them."""

    percent: int  # 1 to 99
    duration: float


class DrainSpec(Spec, frozen=True, kw_only=True):
    """How long the old child's waiting connections are given."""

    deadline: float = 30.0
    connections: bool = False


class MaintenanceSpec(Spec, frozen=True, kw_only=True):
    """What clients get while no child serves."""

    page: str = ""  # template text; "" = the built-in page
    hold: float = 5.0
    retry_after: float = 30.0


class HooksSpec(Spec, frozen=True, kw_only=True):
    """Commands at points of an app's life."""

    init: tuple[str, ...] = ()  # before the first start on this host
    cleanup: tuple[str, ...] = ()  # after the app was removed or the agent stops it for good
    crashed: tuple[str, ...] = ()  # after the child ended unexpectedly
    timeout: float = 30.0


class PlaceSpec(Spec, frozen=True, kw_only=True):
    """A link outside the data directory, to the app's files or to one of them."""

    path: str  # absolute, normalised
    inner: str = ""  # relative path in the app's files; "" = all of them


class DriftSpec(Spec, frozen=True, kw_only=True):
    """What is done about managed files and links that are not as they were written."""

    action: str = "repair"  # "repair", "report", "ignore"
    every: float = 60.0


class AppSpec(Spec, frozen=True, kw_only=True):
    """One app, wanted on this host."""

    name: str
    version: str
    artifact: ArtifactSpec | None = None
    files: tuple[ManagedFile, ...] = ()
    dirs: dict[str, str] = {}
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}  # what stands in env and files, to be masked wherever it is read
    salt: str = ""  # of this host: nobody can try secrets out against the digests; "" without secrets
    tasks: tuple[TaskSpec, ...] = ()
    migrate: tuple[MigrationSpec, ...] = ()
    down: bool = False  # the way back may run the down of reversible migrations
    run: RunSpec | None = None
    listen: tuple[PortSpec, ...] = ()
    udp: tuple[PortSpec, ...] = ()  # the program binds them by itself; only with Swap.RESTART
    socket: SocketMode = SocketMode.OWN
    swap: Swap = Swap.RESTART
    health: HealthSpec = HealthSpec()
    canary: CanarySpec | None = None  # only with Swap.OVERLAP
    drain: DrainSpec = DrainSpec()
    maintenance: MaintenanceSpec = MaintenanceSpec()
    hooks: HooksSpec = HooksSpec()
    job: JobSpec | None = None  # only without `run` and `places`
    places: tuple[PlaceSpec, ...] = ()  # only without `run`
    after: tuple[str, ...] = ()  # run once the files of `places` have changed
    drift: DriftSpec = DriftSpec()
    needs: tuple[str, ...] = ()  # apps that serve before this one starts
    keep: int = 3

    @property
    def digest(self) -> str:
        """The identity of what is wanted: sha256 over the canonical encoding, as hex."""
        return canonical_digest(self)

    @property
    def user(self) -> str:
        """The name of the user that the app's programs run as; "" = the agent's own."""
        program = self.run or self.job
        return program.user if program is not None else ""

    @property
    def container(self) -> ContainerSpec | None:
        """The container that the app's programs run in; None when they run on the host."""
        program = self.run or self.job
        return program.container if program is not None else None

    @property
    def ports(self) -> tuple[tuple[PortSpec, ...], SocketMode]:
        """What a gate is made for: specifications that agree in it share one. A slot is a slot (FD)."""
        return self.listen, SocketMode.FD if self.socket.slots else self.socket

    @property
    def files_digest(self) -> str:
        """The identity of the config generation: sha256 over targets, modes and contents."""
        files = [(f.target, f.mode, f.content) for f in self.files]
        return canonical_digest((self.salt, files) if self.salt else files)


def canonical_digest(value: object) -> str:
    """sha256 hex over the canonical msgpack encoding of `value` (keys sorted, order of fields fixed)."""
    return hashlib.sha256(msgspec.msgpack.encode(value, order="deterministic")).hexdigest()


def encode(spec: AppSpec) -> bytes:
    """An AppSpec as msgpack bytes: what a deployment keeps on disk to come back without network."""
    return msgspec.msgpack.encode(spec, order="deterministic")


def decode(data: bytes) -> AppSpec:
    """The inverse of `encode`. Raises msgspec.DecodeError or ValidationError on foreign bytes."""
    return msgspec.msgpack.decode(data, type=AppSpec)
