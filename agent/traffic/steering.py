"""Steering programs: classic BPF that picks the slot of a new connection (socket(7)).

A program (SO_ATTACH_REUSEPORT_CBPF) returns an index into the SO_REUSEPORT group; the kernel runs it
once for each SYN. A flip is one setsockopt: atomic, unprivileged, and free afterwards. The program
belongs to the group, and any listening member can attach it; on a socket that does not listen it would
found a group of its own. An index beyond the group's members makes the kernel fall back to its own hash.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct

SO_ATTACH_REUSEPORT_CBPF = 51
PROBE_SOURCE = "127.83.0.1"  # loopback: needs no configuration, and no client outside can have it
SERVING_SOURCE = "127.83.0.2"  # the same, for probes of the child that serves beside a canary

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_NETWORK_HEADER = -0x100000  # SKF_NET_OFF
_IPV4_SOURCE = 12  # offset of the source address in an IPv4 header
_RANDOM = -0x1000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: 32 random bits

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, operand

Instruction = tuple[int, int, int, int]
Program = tuple[Instruction, ...]


def always(index: int) -> Program:
    """Every new connection to `index`. Reads no packet bytes, so it cannot fail."""
    return ((_RETURN, 0, 0, index),)


def split_share(percent: int, few: int, many: int) -> Program:
    """`percent` of the new connections, drawn at random, to index `few`, all others to index `many`."""
    return (
        (_LOAD_WORD, 0, 0, _RANDOM & 0xFFFFFFFF),
        (_JUMP_AT_LEAST, 0, 1, (percent << 32) // 100),
        (_RETURN, 0, 0, many),
        (_RETURN, 0, 0, few),
    )


def probe_first(probe: int, rest: Program, source: str = PROBE_SOURCE) -> Program:
    """IPv4 connections from `source` to index `probe`, all others as `rest` says."""
    return (
        (_LOAD_WORD, 0, 0, (_NETWORK_HEADER + _IPV4_SOURCE) & 0xFFFFFFFF),
        (_JUMP_EQUAL, 0, 1, int(ipaddress.IPv4Address(source))),
        (_RETURN, 0, 0, probe),
        *rest,
    )


def split_probe(probe: int, others: int, source: str = PROBE_SOURCE) -> Program:
    """IPv4 connections from `source` to index `probe`, all others to index `others`."""
    return probe_first(probe, always(others), source)


def attach(member: socket.socket, program: Program) -> None:
    """Make `program` that of the group of `member`, which must be listening. Raises OSError."""
    code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("HP", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    member.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, fprog)
