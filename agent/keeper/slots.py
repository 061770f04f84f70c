"""Listening sockets in SO_REUSEPORT groups, opened once and held while the keeper lives.

A slot's index in its group is the order of listen(2), and stays what it is as long as no member is
closed: so they listen in order, a group grows only at its end, and it ends only as a whole. Until somebody
steers a new group, every connection goes to its first slot: the kernel's own choice would be any of them,
and a client would wait at one that nobody accepts from, or be answered by a program not probed yet.
"""

from __future__ import annotations

import array
import errno
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COUNT_MAX = 129  # one for nobody, and two for each of 64 instances
SO_ATTACH_REUSEPORT_CBPF = 51


class Slots:
    """The groups by key."""

    def __init__(self) -> None:
        self._groups: dict[str, tuple[dict[str, Any], list[socket.socket]]] = {}

    def open(
        self, key: str, address: str, port: int, count: int, backlog: int
    ) -> tuple[dict[str, Any], list[int]]:
        """Open a group, or find it open: its record and descriptors, which stay the keeper's.

        One that has fewer than `count` gets more, behind those it has; one that has more is told whole.
        Port 0 takes a free one. Raises OSError (EADDRINUSE, EACCES ...; EEXIST when `key` is held for
        another address) and ValueError.
        """
        if not 1 <= count <= COUNT_MAX:
            raise ValueError(f"a group has 1 to {COUNT_MAX} slots, not {count}")
        if key in self._groups:
            record, sockets = self._groups[key]
            if record["address"] != address or port not in (0, record["port"]):
                raise OSError(errno.EEXIST, f"{key} is held for {record['address']}:{record['port']}")
            sockets += _members(address, record["port"], count - len(sockets), backlog)
            record["count"] = len(sockets)
        else:
            sockets = _listen(address, port, count, backlog)
            port = sockets[0].getsockname()[1]
            record = {"key": key, "address": address, "port": port, "count": count}
            self._groups[key] = (record, sockets)
        return record, [sock.fileno() for sock in sockets]

    def descriptor(self, key: str, index: int) -> int:
        """One slot's descriptor. Raises LookupError."""
        return self._groups[key][1][index].fileno()

    def address(self, key: str) -> tuple[str, int] | None:
        """Address and port of a group; None when it is not open."""
        record, _ = self._groups.get(key, (None, []))
        return None if record is None else (record["address"], record["port"])

    def close(self, key: str) -> None:
        """Close a group; one that is not open is no error."""
        for sock in self._groups.pop(key, ({}, []))[1]:
            sock.close()

    def records(self) -> list[dict[str, Any]]:
        """What is held."""
        return [record for record, _ in self._groups.values()]


def _listen(address: str, port: int, count: int, backlog: int) -> list[socket.socket]:
    # Without SO_REUSEPORT, bind(2) fails where somebody listens; with it, this group would silently
    # become part of that of another process of the same user.
    with _unbound(address) as alone:
        alone.bind((address, port))
    first = _members(address, port, 1, backlog)
    try:
        _steer_to_first(first[0])
        return first + _members(address, first[0].getsockname()[1], count - 1, backlog)
    except BaseException:
        first[0].close()
        raise


def _members(address: str, port: int, count: int, backlog: int) -> list[socket.socket]:
    """So many sockets more in the group of address and port: all bound, then listening, or none."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = _unbound(address)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((address, port))
        for sock in sockets:
            sock.listen(backlog)
    except BaseException:
        for sock in reversed(sockets):
            sock.close()
        raise
    return sockets


def _steer_to_first(member: socket.socket) -> None:
    """Have a group's connections go to its first slot: classic BPF of one instruction (socket(7))."""
    program = array.array("B", struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K: index 0
    described = struct.pack("HP", 1, program.buffer_info()[0])  # struct sock_fprog
    member.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, described)


def _unbound(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        # :: is everywhere, IPv4 included, whatever net.ipv6.bindv6only says
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock
