"""Asks the kernel for its TCP sockets by netlink (sock_diag(7)): filtered there, by state and local port.

A busy host has tens of thousands of connections in TIME_WAIT; reading all of them as text from /proc
takes seconds of processor time there, this milliseconds. It needs no privilege, but a kernel built with
INET_DIAG, and a sandbox that lets AF_NETLINK through.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: the dump is not consistent
_TRIES = 5
_TIMEOUT = struct.pack("ll", 5, 0)  # struct timeval: an answer that does not come
_BUFFER = 64 << 10

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBxI 2s2s16s16sI8s")  # inet_diag_req_v2 with its inet_diag_sockid
_MESSAGE = struct.Struct("=BBBB 2s2s16s16sI8s IIIII")  # inet_diag_msg


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One socket: addresses as host and port, `state` as the kernel counts (tcp_states.h).

    `waiting` is the length of a listener's accept queue; of others, the unread bytes.
    """

    local: tuple[bytes, int]
    remote: tuple[bytes, int]
    state: int
    inode: int
    waiting: int = field(default=0, compare=False)


def dump(ports: Collection[int], states: Collection[int]) -> Iterator[TcpSocket]:
    """The sockets of this network namespace on local `ports` in `states`, IPv4 and IPv6. Blocks.

    Raises OSError where the kernel or the sandbox does not offer this, or does not answer.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        for port in ports:
            for family in (socket.AF_INET, socket.AF_INET6):
                yield from _whole(link, family, port, states)


def _whole(link: socket.socket, family: int, port: int, states: Collection[int]) -> list[TcpSocket]:
    for _ in range(_TRIES):
        found, whole = _once(link, family, port, states)
        if whole:
            break
    return found


def _once(
    link: socket.socket, family: int, port: int, states: Collection[int]
) -> tuple[list[TcpSocket], bool]:
    bits = sum(1 << state for state in states)
    any_address = bytes(16)
    request = _REQUEST.pack(
        family, socket.IPPROTO_TCP, 0, bits, port.to_bytes(2, "big"), bytes(2), any_address, any_address,
        0, b"\xff" * 8,
    )  # fmt: skip
    link.send(_HEADER.pack(_HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
    found: list[TcpSocket] = []
    whole = True
    while True:
        data = link.recv(_BUFFER)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
            body = offset + _HEADER.size
            whole = whole and not flags & _INTERRUPTED
            if kind == _DONE:
                return found, whole
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", data, body)
                raise OSError(-code, "the kernel does not tell about its sockets")
            if kind == SOCK_DIAG_BY_FAMILY:
                found.append(_parse(data, body))
            offset += max(_HEADER.size, (length + 3) & ~3)


def _parse(data: bytes, offset: int) -> TcpSocket:
    family, state, _, _, sport, dport, source, target, _, _, _, waiting, _, _, inode = _MESSAGE.unpack_from(
        data, offset
    )
    size = 4 if family == socket.AF_INET else 16
    return TcpSocket(
        (source[:size], int.from_bytes(sport, "big")),
        (target[:size], int.from_bytes(dport, "big")),
        state,
        inode,
        waiting,
    )
