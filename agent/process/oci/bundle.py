"""The config.json of a container (OCI Runtime Specification 1.0.2, "Configuration"). Pure.

The tiers are those of `agent.process.isolation`, with the means of containers:

| | none | standard | strict |
|---|---|---|---|
| noNewPrivileges | | yes | yes |
| capabilities | as the agent's, none to make devices | those ordinary servers of root use | none |
| seccomp | | machine-wide calls denied | and those about other processes and namespaces |
| the root | may be written, for itself | the same | read only, /tmp in memory |
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.domain.spec import LimitsSpec
from agent.keeper.confine import seccomp
from agent.process.cgroups import PERIOD
from agent.process.isolation import ORDINARY

VERSION = "1.0.2"
ROOT = "root"  # the root's directory in the bundle
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
MAKE_DEVICES = 27  # CAP_MKNOD: the devices of a container are those in its /dev
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
)  # fmt: skip
GROUPS = "/sys/fs/cgroup"
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
ARCHITECTURES = {"x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"), "aarch64": ("SCMP_ARCH_AARCH64",)}


@dataclass(frozen=True, slots=True)
class Program:
    """What runs in a container, and how.

    `binds` are (path inside, path outside, options of mount(8)). `own_pids`: it is number 1 of a PID
    namespace of its own. `held` are the capabilities (numbers) that can be given at all. `rootless`: its
    root is the user of the agent, in a user namespace that has nobody else.
    """

    args: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    hostname: str
    uid: int
    gid: int
    groups: Sequence[int] = ()
    umask: int = 0o022
    rlimits: Mapping[str, int] = field(default_factory=dict)
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    tier: str = "standard"
    binds: Sequence[tuple[str, str, Sequence[str]]] = ()
    own_pids: bool = False
    rootless: bool = False
    held: Sequence[int] = tuple(range(len(CAPABILITIES)))


def config(program: Program, cgroup: str, machine: str) -> dict[str, Any]:
    """The document. `cgroup` is its cgroupsPath, "" for none, `machine` as uname(2) has it."""
    process: dict[str, Any] = {
        "terminal": False,
        "user": {
            "uid": program.uid,
            "gid": program.gid,
            "umask": program.umask,
            "additionalGids": list(program.groups),
        },
        "args": list(program.args),
        "env": [f"{name}={value}" for name, value in program.env.items()],
        "cwd": program.cwd,
        "capabilities": _capabilities(program),
        "noNewPrivileges": program.tier != "none",
        "rlimits": [
            {"type": f"RLIMIT_{name}", "soft": number, "hard": number}
            for name, value in program.rlimits.items()
            for number in (value if value >= 0 else (1 << 64) - 1,)
        ],
    }
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("mount", "uts", "ipc", *(("pid",) * program.own_pids))],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "maskedPaths": [*MASKED, *((GROUPS,) * program.rootless)],
        "readonlyPaths": list(READ_ONLY),
    }
    if cgroup:
        linux["cgroupsPath"] = cgroup
        linux["resources"] |= _resources(program.limits)
    if program.tier != "none" and machine in ARCHITECTURES:
        linux["seccomp"] = _seccomp(program.tier, machine)
    return {
        "ociVersion": VERSION,
        "process": process,
        "root": {"path": ROOT, "readonly": program.tier == "strict"},
        "hostname": program.hostname,
        "mounts": _mounts(program),
        "linux": linux,
    }


def _capabilities(program: Program) -> dict[str, list[str]]:
    most = [n for n in program.held if n != MAKE_DEVICES]
    wanted = {"none": most, "standard": ORDINARY, "strict": ()}[program.tier]
    names = [f"CAP_{CAPABILITIES[n]}" for n in wanted if n in program.held and n < len(CAPABILITIES)]
    return dict.fromkeys(("bounding", "effective", "permitted"), names)


def _resources(limits: LimitsSpec) -> dict[str, Any]:
    """What the agent has written into the container's control group already, so that nobody takes it back."""
    found: dict[str, Any] = {}
    if limits.memory:
        found["memory"] = {"limit": limits.memory}
    if limits.cpus:
        found["cpu"] = {"quota": max(1000, int(limits.cpus * PERIOD)), "period": PERIOD}
    if limits.pids:
        found["pids"] = {"limit": limits.pids}
    return found


def _seccomp(tier: str, machine: str) -> dict[str, Any]:
    denied = {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    absent = {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
    calls: list[dict[str, Any]] = [
        {"names": sorted(seccomp.MACHINE_WIDE), **denied},
        {"names": sorted(seccomp.RINGS), **absent},
    ]
    if tier == "strict":
        calls.append({"names": sorted(seccomp.BEYOND), **denied})
        calls.append({"names": ["clone3"], **absent})
        bits = [1 << n for n in range(32) if seccomp.NEW_SPACES >> n & 1]
        calls += [
            {
                "names": ["clone"],
                **denied,
                "args": [{"index": 0, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"}],
            }
            for bit in bits
        ]
    architectures = ARCHITECTURES[machine][: 1 if tier == "strict" else None]
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": list(architectures), "syscalls": calls}


def _mounts(program: Program) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    mounts = [
        _mount("/proc", "proc", safe),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=64k"]),
        _mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        _mount("/dev/shm", "tmpfs", [*safe, "mode=1777", "size=10%"]),  # noqa: S108
        _mount("/dev/mqueue", "mqueue", safe),
        _mount("/sys", "sysfs", [*safe, "ro"]) if not program.rootless else _outer_sys(safe),
    ]
    if program.tier == "strict":
        mounts.append(_mount("/tmp", "tmpfs", ["nosuid", "nodev", "mode=1777", "size=10%"]))  # noqa: S108
    for inside, outside, options in program.binds:
        how = ["rbind", "nosuid", "nodev", *options]
        mounts.append({"destination": inside, "type": "bind", "source": outside, "options": how})
    return mounts


def _outer_sys(options: Sequence[str]) -> dict[str, Any]:
    """This host's: one of its own is for who owns the network's namespace."""
    return {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro", *options]}


def _mount(place: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": kind, "options": options}
