"""Control groups for what is limited (cgroups(7)): made before a start, read, and removed after the end.

Version 2 has one tree, and a group with processes in it gives nothing to groups below. So the agent, its
keeper and whoever is with them first move into a group of their own, once:

    BASE                  what we were given: a unit with Delegate=yes, a container's own group
    BASE/emptybox         keeper, agent, and programs without limits
    BASE/APP~CHILD~BOX    one program with limits, and all it starts; BOX is the id of the data directory

Version 1 has a tree for each controller, where groups are made right below our own. Also where an empty
tree of version 2 is beside them. Everything here blocks for some small files.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.domain.errors import OperatorNeeded
from agent.domain.spec import LimitsSpec

OWN = "emptybox"
MARK = "~"  # between the parts of a group's name: in no name of an app or a child
PERIOD = 100_000  # microseconds: what a share of processors is counted in
MOUNTS_MAX = 1 << 20
V1 = {"memory": "memory", "cpu": "cpu", "pids": "pids", "io": "blkio"}  # our names: version 1's
REMEDY = (
    "let the agent write its control group (systemd: Delegate=yes; a container: a writable cgroup mount), "
    "or leave run.limits out; run.rlimits.data and .processes bound each process, and each user, without it"
)


@dataclass(frozen=True, slots=True)
class Use:
    """What the limited programs of an app use now: bytes, seconds, processes; and how often one was killed.

    `killed` counts since the agent's start, for want of memory below the limit.
    """

    memory: int = 0
    cpu_seconds: float = 0.0
    pids: int = 0
    killed: int = 0


@dataclass(slots=True)
class Tree:
    """Where groups are made: for each controller a directory of ours; of version 2 it is the same one."""

    unified: bool
    base: dict[str, Path] = field(default_factory=dict)


class Cgroups:
    """All groups of one agent. Its methods may be called in threads."""

    def __init__(self, box: str, proc: Path = Path("/proc"), device: Path = Path("/")) -> None:
        """Of the process that `proc`/self is; `device` is on the disk whose use is limited."""
        self.box = box
        self._proc = proc
        self._device = device
        self._tree: Tree | None = None
        self._lock = threading.Lock()
        self._killed: dict[str, int] = {}

    def make(self, app: str, child: str, limits: LimitsSpec) -> list[str]:
        """Make the groups of a child, with its limits; returns the directories its first process enters.

        Raises OperatorNeeded("LimitsNotPossible").
        """
        with self._lock:
            try:
                wanted = {name for name, _, _ in _settings(limits, unified=True, device="")}
                tree = self._prepared(wanted)
                device = _device(self._device) if "io" in wanted else ""
                made: list[str] = []
                for controller, file, text in _settings(limits, tree.unified, device):
                    group = tree.base[controller] / group_name(app, child, self.box)
                    if str(group) not in made:
                        group.mkdir(exist_ok=True)
                        made.append(str(group))
                    _write(group / file, text)
                if tree.unified or "memory" in wanted:
                    self._no_swap(tree, Path(made[0]), limits)
                return made
            except OSError as error:
                self._remove(app, child)
                where = f" ({error.filename})" if error.filename else ""
                raise OperatorNeeded(
                    "LimitsNotPossible", f"run.limits cannot be in force here: {error.strerror}{where}",
                    remedy=REMEDY,
                ) from None  # fmt: skip

    def killed(self, app: str, child: str) -> int:
        """How many processes of a child were killed for want of memory below its limit."""
        with self._lock:
            tree = self._known()
            return _Group(tree, group_name(app, child, self.box)).killed() if tree is not None else 0

    def remove(self, app: str, child: str) -> int:
        """Remove the groups of a child whose processes are gone; how many of those were killed for memory."""
        with self._lock:
            return self._remove(app, child)

    def used(self) -> Mapping[str, Use]:
        """What limited programs use, by app."""
        with self._lock:
            found = {app: Use(killed=killed) for app, killed in self._killed.items()}
            for app, group in self._groups():
                before = found.get(app, Use())
                found[app] = Use(
                    before.memory + group.memory(), before.cpu_seconds + group.cpu_seconds(),
                    before.pids + group.pids(), before.killed + group.killed(),
                )  # fmt: skip
            return found

    def _remove(self, app: str, child: str) -> int:
        tree = self._known()
        if tree is None:
            return 0
        group = _Group(tree, group_name(app, child, self.box))
        killed = group.killed()
        if killed:
            self._killed[app] = self._killed.get(app, 0) + killed
        group.remove()
        return killed

    def _known(self) -> Tree | None:
        """The trees as they are, for children of an earlier agent too."""
        if self._tree is None:
            with contextlib.suppress(OSError):
                self._tree = self._found()
        return self._tree

    def _groups(self) -> Iterator[tuple[str, _Group]]:
        if self._tree is None:
            return
        names = set()
        for base in set(self._tree.base.values()):
            with contextlib.suppress(OSError):
                names |= {name for name in os.listdir(base) if name.endswith(MARK + self.box)}
        for name in sorted(names):
            yield name.partition(MARK)[0], _Group(self._tree, name)

    def _prepared(self, wanted: set[str]) -> Tree:
        """The trees, with these controllers ready for use. Raises OSError."""
        if self._tree is None:
            self._tree = self._found()
            for _, left in self._groups():  # by an agent that was killed
                left.remove()
        tree = self._tree
        missing = sorted(wanted - set(tree.base))
        if missing:
            version = "2" if tree.unified else "1"
            raise OSError(0, f"no controller of version {version} here for {', '.join(missing)}")
        if tree.unified:
            _delegate(next(iter(tree.base.values())), wanted)
        return tree

    def _found(self) -> Tree:
        """What is mounted, and where in it we are. Raises OSError."""
        found = list(mounts(self._proc))
        inside = {}
        for line in (self._proc / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for name in controllers.split(","):
                inside[name] = path
        for kind, point, root, _ in found:
            if kind == "cgroup2" and "" in inside:
                base = directory_of(point, root, inside[""])
                base = base.parent if base.name == OWN else base
                given = set((base / "cgroup.controllers").read_text().split())
                if given & set(V1):  # else an empty tree, beside those of version 1
                    return Tree(True, {name: base for name in V1 if name in given})
        tree = Tree(False)
        for kind, point, root, options in found:
            for ours, theirs in V1.items():
                if kind == "cgroup" and theirs in options and theirs in inside:
                    tree.base[ours] = directory_of(point, root, inside[theirs])
        if not tree.base:
            raise OSError(0, "no control groups are mounted")
        return tree

    @staticmethod
    def _no_swap(tree: Tree, group: Path, limits: LimitsSpec) -> None:
        """A limit of memory that is met by swapping would only make the program slow."""
        if not limits.memory:
            return
        name, text = ("memory.swap.max", "0") if tree.unified else (
            "memory.memsw.limit_in_bytes", str(limits.memory)
        )  # fmt: skip
        with contextlib.suppress(OSError):  # a kernel may not count swap
            _write(_of(tree, "memory", group) / name, text)


class _Group:
    """The groups of one child, in all trees. What cannot be read counts as 0."""

    def __init__(self, tree: Tree, name: str) -> None:
        self._tree = tree
        self._at = {controller: base / name for controller, base in tree.base.items()}

    def remove(self) -> None:
        """Where nobody is left in it."""
        for directory in set(self._at.values()):
            with contextlib.suppress(OSError):
                directory.rmdir()

    def memory(self) -> int:
        file = "memory.current" if self._tree.unified else "memory.usage_in_bytes"
        return _number(self._read("memory", file))

    def cpu_seconds(self) -> float:
        if self._tree.unified:
            return _field(self._read("cpu", "cpu.stat"), "usage_usec") / 1e6
        return _number(self._read("cpu", "cpuacct.usage")) / 1e9  # mounted with cpu nearly everywhere

    def pids(self) -> int:
        return _number(self._read("pids", "pids.current"))

    def killed(self) -> int:
        file = "memory.events" if self._tree.unified else "memory.oom_control"
        return _field(self._read("memory", file), "oom_kill")

    def _read(self, controller: str, file: str) -> str:
        try:
            return (self._at[controller] / file).read_text()
        except (OSError, KeyError):
            return ""


def _settings(limits: LimitsSpec, unified: bool, device: str) -> Iterator[tuple[str, str, str]]:
    """Controller, file and text of each limit."""
    if limits.memory:
        yield "memory", "memory.max" if unified else "memory.limit_in_bytes", str(limits.memory)
    if limits.cpus:
        quota = max(1000, int(limits.cpus * PERIOD))
        if unified:
            yield "cpu", "cpu.max", f"{quota} {PERIOD}"
        else:
            yield "cpu", "cpu.cfs_period_us", str(PERIOD)
            yield "cpu", "cpu.cfs_quota_us", str(quota)
    if limits.pids:
        yield "pids", "pids.max", str(limits.pids)
    for way, value in (("read", limits.read), ("write", limits.write)):
        if not value:
            continue
        if unified:
            yield "io", "io.max", f"{device} {way[0]}bps={value}"
        else:
            yield "io", f"blkio.throttle.{way}_bps_device", f"{device} {value}"


def _delegate(base: Path, wanted: set[str]) -> None:
    """Let groups below `base` have these controllers. Raises OSError."""
    enabled = set((base / "cgroup.subtree_control").read_text().split())
    if wanted <= enabled:
        return
    if (base / "cgroup.type").exists():  # not the root of all groups, which may have both
        own = base / OWN
        own.mkdir(exist_ok=True)
        for _ in range(10):  # who forks meanwhile is seen the next time
            pids = (base / "cgroup.procs").read_text().split()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    _write(own / "cgroup.procs", pid)
            if not pids:
                break
    _write(base / "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(wanted - enabled)))


def mounts(proc: Path) -> Iterator[tuple[str, Path, str, list[str]]]:
    """Kind, point, root and options of the control groups' mounts (proc(5), mountinfo)."""
    with open(proc / "self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file.read(MOUNTS_MAX).splitlines():
            before, _, after = line.partition(" - ")
            words, (kind, _, options, *_) = before.split(), after.split()
            if kind in ("cgroup", "cgroup2"):
                yield kind, Path(words[4]), words[3], options.split(",")


def directory_of(point: Path, root: str, inside: str) -> Path:
    """The directory of the group `inside`, of a tree of which `root` and all below is mounted at `point`.

    In a container the path may be another namespace's: then what is mounted is our own group.
    """
    relative = os.path.relpath(inside, root) if root.startswith("/") and ".." not in root else inside
    if relative.startswith(".."):
        return point
    directory = point / relative.lstrip("/")
    return directory if directory.is_dir() else point


def _device(path: Path) -> str:
    """The whole disk that has a path, as MAJOR:MINOR. Raises OSError."""
    number = path.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    place = Path("/sys/dev/block") / name
    if not place.exists():
        raise OSError(0, f"{path} is on no disk whose use could be limited")
    if (place / "partition").exists():
        name = (place.resolve().parent / "dev").read_text().strip()
    return name


def _of(tree: Tree, controller: str, group: Path) -> Path:
    return tree.base[controller] / group.name


def group_name(app: str, child: str, box: str) -> str:
    """The name of a child's group."""
    return f"{app}{MARK}{child.replace('/', MARK)}{MARK}{box}"


def _write(path: Path, text: str) -> None:
    """One call, as the kernel wants it. Raises OSError with the path."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno or 0, error.strerror or "", str(path)) from None


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value)
    return 0
