"""The trap: a seccomp filter that stops a process tree at bind(2) and listen(2) and tells its keeper.

All other calls pass, also those of other architectures on the same kernel (32-bit, x32). The filter
reads nothing but the call's number and architecture, so the kernel remembers for each call that it
passes and does not run the filter for it (seccomp's action cache, Linux 5.11).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
SPEC_ALLOW = 1 << 2  # this is no sandbox: do not switch the processor's speculation off for the child
NEW_LISTENER = 1 << 3
WAIT_KILLABLE_RECV = 1 << 5  # from Linux 5.19: no signal handler interrupts a call that is being answered
RET_USER_NOTIF = 0x7FC00000
RET_ALLOW = 0x7FFF0000

# machine: AUDIT_ARCH, and the numbers of seccomp, bind, listen
CALLS = {"x86_64": (0xC000003E, 317, 49, 50), "aarch64": (0xC00000B7, 277, 200, 201)}

_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p)


def calls() -> tuple[int, int, int, int]:
    """AUDIT_ARCH, and the numbers of seccomp, bind and listen, here. Raises OSError (ENOSYS) elsewhere."""
    machine = os.uname().machine
    if machine not in CALLS or struct.calcsize("P") != 8:
        raise OSError(errno.ENOSYS, f"adopt is not known on {machine}")
    return CALLS[machine]


def program(architecture: int, bind: int, listen: int) -> bytes:
    """The filter, as an array of struct sock_filter."""
    steps = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 0, 4, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_EQUAL, 1, 0, bind),
        (_JUMP_EQUAL, 0, 1, listen),
        (_RETURN, 0, 0, RET_USER_NOTIF),
        (_RETURN, 0, 0, RET_ALLOW),
    )
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)


def install() -> int:
    """Set the trap for this thread and all it will start; returns the listener's descriptor.

    Gives up the gain of privileges by exec (PR_SET_NO_NEW_PRIVS) only where the kernel asks for that.
    Raises OSError: ENOSYS, EPERM or EINVAL where the kernel or a sandbox has no such filters, EBUSY
    where this process is itself in a trap.
    """
    architecture, seccomp, bind, listen = calls()
    code = program(architecture, bind, listen)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("HP", len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
    flags = NEW_LISTENER | SPEC_ALLOW | WAIT_KILLABLE_RECV
    while True:
        listener = _libc.syscall(seccomp, SECCOMP_SET_MODE_FILTER, flags, fprog)
        if listener >= 0:
            return int(listener)
        code_of_error = ctypes.get_errno()
        if code_of_error == errno.EACCES and _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            continue
        if code_of_error == errno.EINVAL and flags & WAIT_KILLABLE_RECV:
            flags &= ~WAIT_KILLABLE_RECV
            continue
        raise OSError(code_of_error, os.strerror(code_of_error))
