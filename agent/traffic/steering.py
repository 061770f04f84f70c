"""Steering programs: classic BPF that picks the slot of a new connection (socket(7)).

A program (SO_ATTACH_REUSEPORT_CBPF) returns an index into the SO_REUSEPORT group; the kernel runs it
once for each SYN. A flip is one setsockopt: atomic, unprivileged, and free afterwards. The program
belongs to the group, and any listening member can attach it; on a socket that does not listen it would
found a group of its own. An index beyond the group's members makes the kernel fall back to its own hash.

IPv4 and IPv6 sockets are never one group. A client that comes to a dual-stack socket over IPv4 is seen as
what it is, a packet of IPv4.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Sequence

from agent.domain.probe_mark import traffic_class

SO_ATTACH_REUSEPORT_CBPF = 51
DUAL_STACK = "::"
PROBE_SOURCE = "127.83.0.1"  # loopback: needs no configuration, and no client outside can have it
SERVING_SOURCE = "127.83.0.2"  # the same, for probes of the child that serves beside a canary
_NUMBERED = ipaddress.IPv4Address("127.83.1.0")  # and of one of several instances: the index behind it

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_LOAD_HALF = 0x28  # BPF_LD | BPF_H | BPF_ABS
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_RETURN_FOUND = 0x16  # BPF_RET | BPF_A
_NETWORK_HEADER = -0x100000  # SKF_NET_OFF
_IPV4_SOURCE = 12  # offset of the source address in an IPv4 header
_IPV6_SOURCE = 8  # and in an IPv6 header
_IPV6_CLASS = 20  # bits to the right of the traffic class in the first word of an IPv6 header
_PROTOCOL = -0x1000  # SKF_AD_OFF + SKF_AD_PROTOCOL: an EtherType
_IPV4 = 0x0800
_RANDOM = -0x1000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: 32 random bits

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, operand

Instruction = tuple[int, int, int, int]
Program = tuple[Instruction, ...]


def always(index: int) -> Program:
    """Every new connection to `index`. Reads no packet bytes, so it cannot fail."""
    return ((_RETURN, 0, 0, index),)


def spread(indices: Sequence[int]) -> Program:
    """Each new connection, drawn at random, to one of `indices`; there is at least one."""
    if len(indices) == 1:
        return always(indices[0])
    program: Program = ((_LOAD_WORD, 0, 0, _RANDOM & 0xFFFFFFFF), (_MODULO, 0, 0, len(indices)))
    for number, index in enumerate(indices[1:], start=1):
        program += ((_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, index))
    return program + always(indices[0])


def split_share(percent: int, few: Program, many: Program) -> Program:
    """`percent` of the new connections, drawn at random, as `few` says, all others as `many` says."""
    return (
        (_LOAD_WORD, 0, 0, _RANDOM & 0xFFFFFFFF),
        (_JUMP_AT_LEAST, 0, len(many), (percent << 32) // 100),
        *many,
        *few,
    )


def probe_first(
    probe: Program, rest: Program, source: str = PROBE_SOURCE, address: str = "0.0.0.0"
) -> Program:
    """Connections of the prober that is marked by `source` as `probe` says, all others as `rest` says.

    `address` is the one the group is bound to; at :: probes come over IPv4. See `domain.probe_mark`.
    """
    if ":" in address and address != DUAL_STACK:
        return _class_first(probe, rest, traffic_class(source), address)
    return _source_first(probe, rest, source, dual=address == DUAL_STACK)


def split_probe(probe: int, others: int, source: str = PROBE_SOURCE) -> Program:
    """IPv4 connections from `source` to index `probe`, all others to index `others`."""
    return probe_first(always(probe), always(others), source)


def numbered_source(index: int) -> str:
    """The source address of a prober that wants to reach one index of the group. See `by_number`."""
    return str(_NUMBERED + index)


def by_number(rest: Program, address: str = "0.0.0.0") -> Program:
    """Connections from `numbered_source(i)` to index i, all others as `rest` says. IPv4 clients only."""
    program: Program = (
        (_LOAD_WORD, 0, 0, (_NETWORK_HEADER + _IPV4_SOURCE) & 0xFFFFFFFF),
        (_AND, 0, 0, 0xFFFFFF00),
        (_JUMP_EQUAL, 0, 3, int(_NUMBERED)),
        (_LOAD_WORD, 0, 0, (_NETWORK_HEADER + _IPV4_SOURCE) & 0xFFFFFFFF),
        (_AND, 0, 0, 0xFF),
        (_RETURN_FOUND, 0, 0, 0),
    )
    return _of_ipv4(program, address == DUAL_STACK) + rest


def _source_first(probe: Program, rest: Program, source: str, *, dual: bool) -> Program:
    """By IPv4 source; in a `dual`-stack group IPv4 clients are told from IPv6 clients first."""
    program: Program = (
        (_LOAD_WORD, 0, 0, (_NETWORK_HEADER + _IPV4_SOURCE) & 0xFFFFFFFF),
        (_JUMP_EQUAL, 0, len(probe), int(ipaddress.IPv4Address(source))),
        *probe,
    )
    return _of_ipv4(program, dual) + rest


def _of_ipv4(program: Program, dual: bool) -> Program:
    """Step over a program where the packet is one of IPv6."""
    if not dual:
        return program
    return (
        (_LOAD_HALF, 0, 0, _PROTOCOL & 0xFFFFFFFF),
        (_JUMP_EQUAL, 0, len(program), _IPV4),
        *program,
    )


def _class_first(probe: Program, rest: Program, wanted: int, address: str) -> Program:
    """By traffic class, of those who come from `address` itself: they are on this host."""
    packed = ipaddress.IPv6Address(address).packed
    words = [int.from_bytes(packed[at : at + 4], "big") for at in range(0, len(packed), 4)]
    program: list[Instruction] = list(probe)
    for number, word in reversed(list(enumerate(words))):
        program.insert(0, (_JUMP_EQUAL, 0, len(program), word))
        program.insert(0, (_LOAD_WORD, 0, 0, (_NETWORK_HEADER + _IPV6_SOURCE + 4 * number) & 0xFFFFFFFF))
    program.insert(0, (_JUMP_EQUAL, 0, len(program), wanted << _IPV6_CLASS))
    program.insert(0, (_AND, 0, 0, 0xFF << _IPV6_CLASS))
    program.insert(0, (_LOAD_WORD, 0, 0, _NETWORK_HEADER & 0xFFFFFFFF))
    return (*program, *rest)


def attach(member: socket.socket, program: Program) -> None:
    """Make `program` that of the group of `member`, which must be listening. Raises OSError."""
    code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("HP", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    member.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, fprog)
