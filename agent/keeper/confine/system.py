"""System calls that neither Python nor every C library has a function for."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.syscall.argtypes = (ctypes.c_long,)
libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
libc.mount.argtypes = (ctypes.c_char_p,) * 3 + (ctypes.c_ulong, ctypes.c_char_p)

MACHINES = ("x86_64", "i386", "aarch64")  # the columns of tables of numbers
AUDIT = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
MOUNT_SETATTR = 442  # the same on all machines
_COLUMN = MACHINES.index(os.uname().machine) if os.uname().machine in MACHINES else -1


def machine() -> str:
    """The machine of the tables this process runs on. Raises OSError (ENOSYS) on others, and 32-bit ones."""
    if _COLUMN < 0 or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(errno.ENOSYS, f"not known on {os.uname().machine}")
    return MACHINES[_COLUMN]


def check(result: int) -> int:
    """The result of a call of `libc`. Raises OSError when it is an error."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_uint32] | None) -> int:
    """syscall(2) with whole numbers below 2^31, bytes whose address is passed, and nulls. Raises OSError."""
    return check(libc.syscall(number, *arguments))


def prctl(option: int, second: int = 0) -> int:
    """Do one of the operations on processes. Raises OSError."""
    return check(libc.prctl(option, second, 0, 0, 0))


def read_only(tree: str) -> None:
    """Let nobody write through the mount `tree` and all below it (mount_setattr(2)). Raises OSError."""
    attributes = struct.pack("=4Q", 1, 0, 0, 0)  # MOUNT_ATTR_RDONLY is set, nothing cleared
    here, recursive = -100, 0x8000  # AT_FDCWD, AT_RECURSIVE
    try:
        call(MOUNT_SETATTR, here, tree.encode(), recursive, attributes, len(attributes))
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} (mount_setattr of {tree})") from None


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount something. Raises OSError, with the target in it."""
    texts = [text.encode() for text in (source, target, kind)]
    try:
        check(libc.mount(*texts, flags, data.encode() or None))
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} (mounting {target})") from None
