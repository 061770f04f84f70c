"""Calls that a program is denied (seccomp(2)), by a filter that looks at nothing else where it can.

For what it lets through whatever the arguments, the kernel remembers so and does not run the filter
(Linux 5.11). `standard` denies what only concerns the whole machine, and what opens most doors into the
kernel; `strict` also what looks into other processes and what makes namespaces. Denied calls fail with
EPERM; io_uring, on which programs rely less than on the answer that it is not there, with ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import struct

from agent.keeper.confine.system import AUDIT, MACHINES, call, machine

SECCOMP = {"x86_64": 317, "aarch64": 277}
SET_FILTER, SPEC_ALLOW = 1, 1 << 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000  # SECCOMP_RET_*
X32 = 0x40000000
NEW_SPACES = 0x7E020080  # all CLONE_NEW* that clone(2) takes: TIME NS CGROUP UTS IPC USER PID NET
COMPATIBLE = {"x86_64": "i386"}  # what else runs on the machine, and has a column

# x86_64, i386, aarch64
MACHINE_WIDE: dict[str, tuple[int | None, int | None, int | None]] = {
    "acct": (163, 51, 89),
    "add_key": (248, 286, 217),
    "bpf": (321, 357, 280),
    "clock_settime": (227, 264, 112),
    "clock_settime64": (None, 404, None),
    "create_module": (174, 127, None),
    "delete_module": (176, 129, 106),
    "finit_module": (313, 350, 273),
    "fsconfig": (431, 431, 431),
    "fsmount": (432, 432, 432),
    "fsopen": (430, 430, 430),
    "fspick": (433, 433, 433),
    "get_kernel_syms": (177, 130, None),
    "init_module": (175, 128, 105),
    "ioperm": (173, 101, None),
    "iopl": (172, 110, None),
    "kexec_file_load": (320, None, 294),
    "kexec_load": (246, 283, 104),
    "keyctl": (250, 288, 219),
    "lookup_dcookie": (212, 253, 18),
    "mount": (165, 21, 40),
    "mount_setattr": (442, 442, 442),
    "move_mount": (429, 429, 429),
    "nfsservctl": (180, 169, 42),
    "open_by_handle_at": (304, 342, 265),
    "open_tree": (428, 428, 428),
    "perf_event_open": (298, 336, 241),
    "pivot_root": (155, 217, 41),
    "query_module": (178, 167, None),
    "quotactl": (179, 131, 60),
    "quotactl_fd": (443, 443, 443),
    "reboot": (169, 88, 142),
    "request_key": (249, 287, 218),
    "setdomainname": (171, 121, 162),
    "sethostname": (170, 74, 161),
    "setns": (308, 346, 268),
    "settimeofday": (164, 79, 170),
    "stime": (None, 25, None),
    "swapoff": (168, 115, 225),
    "swapon": (167, 87, 224),
    "sysfs": (139, 135, None),
    "syslog": (103, 103, 116),
    "_sysctl": (156, 149, None),
    "umount": (None, 22, None),
    "umount2": (166, 52, 39),
    "userfaultfd": (323, 374, 282),
    "uselib": (134, 86, None),
    "vhangup": (153, 111, 58),
    "vm86": (None, 166, None),
    "vm86old": (None, 113, None),
}
RINGS = {
    "io_uring_setup": (425, 425, 425),
    "io_uring_enter": (426, 426, 426),
    "io_uring_register": (427, 427, 427),
}
BEYOND: dict[str, tuple[int | None, int | None, int | None]] = {
    "adjtimex": (159, 124, 171),
    "chroot": (161, 61, 51),
    "clock_adjtime": (305, 343, 266),
    "clock_adjtime64": (None, 405, None),
    "fanotify_init": (300, 338, 262),
    "kcmp": (312, 349, 272),
    "migrate_pages": (256, 294, 238),
    "modify_ldt": (154, 123, None),
    "move_pages": (279, 317, 239),
    "name_to_handle_at": (303, 341, 264),
    "personality": (135, 136, 92),
    "pidfd_getfd": (438, 438, 438),
    "process_madvise": (440, 440, 440),
    "process_vm_readv": (310, 347, 270),
    "process_vm_writev": (311, 348, 271),
    "ptrace": (101, 26, 117),
    "unshare": (272, 310, 97),
}
CLONE, CLONE3 = (56, 120, 220), 435

_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN, _GO = 0x20, 0x15, 0x35, 0x45, 0x06, 0x05
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; arguments: low half
_MOUNT_FLAGS, _BIND = _FIRST_ARGUMENT + 3 * 8, 1 << 12  # MS_BIND
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_ALLOWED = [(_RETURN, 0, 0, ALLOW)]
_DENIED = [(_RETURN, 0, 0, ERRNO | errno.EPERM)]
_ABSENT = [(_RETURN, 0, 0, ERRNO | errno.ENOSYS)]
_NO_SPACES = [(_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_OF, 0, 1, NEW_SPACES), *_DENIED, *_ALLOWED]
# Of what is there already, by who is root in a user namespace: no file system's code is reached by it.
_BINDS_ONLY = [(_LOAD, 0, 0, _MOUNT_FLAGS), (_ANY_OF, 0, 1, _BIND), *_ALLOWED, *_DENIED]
_kept: list[object] = []  # the programs, at addresses that stay


def program(tier: str, here: str) -> bytes:
    """The filter of a tier for a machine, as an array of struct sock_filter.

    Calls of other architectures on the same kernel are denied but for the 32-bit ones of x86 in
    `standard`, which have a list of their own.
    """
    steps: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, _ARCHITECTURE)]
    machines = [here] + ([COMPATIBLE[here]] if here in COMPATIBLE and tier != "strict" else [])
    for name in machines:
        block = [(_LOAD, 0, 0, _NUMBER), *_tree(_ranges(tier, name))]
        steps += [(_EQUAL, 1, 0, AUDIT[name]), (_GO, 0, 0, len(block)), *block]
    return b"".join(_INSTRUCTION.pack(*step) for step in (*steps, *_ABSENT))


def _ranges(tier: str, name: str) -> list[tuple[int, list[tuple[int, int, int, int]]]]:
    """Where, going up through the numbers of calls, what is done about them changes; and to what."""
    column = MACHINES.index(name)
    special = {number: _DENIED for row in MACHINE_WIDE.values() if (number := row[column]) is not None}
    special |= {row[column]: _ABSENT for row in RINGS.values()}
    if tier == "standard":
        special |= {number: _BINDS_ONLY for number in (MACHINE_WIDE["mount"][column],) if number is not None}
    if tier == "strict":
        special |= {number: _DENIED for row in BEYOND.values() if (number := row[column]) is not None}
        special |= {CLONE[column]: _NO_SPACES, CLONE3: _ABSENT}
    numbers = {0, *special, *(number + 1 for number in special)}
    ranges = [(number, special.get(number, _ALLOWED)) for number in sorted(numbers)]
    ranges += [(X32, _ABSENT)] if name == "x86_64" else []
    return [one for one, before in zip(ranges, [(0, None), *ranges], strict=False) if one[1] is not before[1]]


def _tree(
    ranges: list[tuple[int, list[tuple[int, int, int, int]]]],
) -> list[tuple[int, int, int, int]]:
    """A search by halves: the kernel goes through it once for every call there is, at each install."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    low, high = _tree(ranges[:middle]), _tree(ranges[middle:])
    return [(_AT_LEAST, len(low), 0, ranges[middle][0]), *low, *high]


@functools.cache
def prepared(tier: str) -> bytes:
    """A struct sock_fprog of a tier here, good as long as the process and its copies. Raises OSError."""
    code = program(tier, machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    _kept.append(buffer)
    return struct.pack("HP", len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))


def install(tier: str) -> None:
    """Set the filter for this thread and all it starts. Needs no_new_privs. Raises OSError."""
    flags = SPEC_ALLOW if tier != "strict" else 0  # no brake on the processor's speculation by default
    call(SECCOMP[machine()], SET_FILTER, flags, prepared(tier))
