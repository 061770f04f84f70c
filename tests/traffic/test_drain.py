from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack

import pytest

from agent.domain.spec import PortSpec
from agent.traffic.drain import connections_gone, handshakes, queues_empty
from agent.traffic.inet_diag import TcpSocket, dump
from agent.traffic.ports import near_address, port_failure
from agent.traffic.slots import accept_waiting, waiting
from agent.traffic.sockets import (
    CLOSE_WAIT,
    ESTABLISHED,
    LISTEN,
    SYN_RECV,
    established,
    listeners,
    proc_sockets,
    process_tree,
    tcp_sockets,
)
from tests.traffic.support import eventually, free_port, group_of

TCP_DEFER_ACCEPT = 9
Look = Callable[[Collection[int], Collection[int]], Iterator[TcpSocket]]


async def test_a_queue_is_waited_for_until_it_is_empty() -> None:
    (listener,) = group_of(1)
    with listener, socket.create_connection(listener.getsockname()):
        port = listener.getsockname()[1]
        assert not await queues_empty(lambda: waiting(listener), [port], 0.05)
        drained = asyncio.ensure_future(queues_empty(lambda: waiting(listener), [port], 20))
        await asyncio.sleep(0)
        accepted = accept_waiting(listener)
        assert accepted is not None
        accepted.close()
        assert await drained


async def test_one_empty_read_between_two_arrivals_is_not_believed() -> None:
    lengths = iter([0, 0, 1, 0, 0, 0, 7])
    assert await queues_empty(lambda: next(lengths), [free_port()], 20)
    assert next(lengths) == 7


async def test_a_handshake_under_way_is_waited_for_and_then_its_place_in_the_queue() -> None:
    (listener,) = group_of(1)
    with listener:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_DEFER_ACCEPT, 10)
        port = listener.getsockname()[1]
        with socket.create_connection(listener.getsockname()) as client:
            assert len(handshakes([port])) == 1
            assert handshakes([free_port()]) == frozenset()
            assert not await queues_empty(lambda: waiting(listener), [port], 0.2)
            client.sendall(b"x")
            await eventually(lambda: waiting(listener) == 1)
            assert handshakes([port]) == frozenset()
            assert not await queues_empty(lambda: waiting(listener), [port], 0.05)


TREE = """
import os, socket, subprocess, sys
connection = socket.socket(fileno=int(sys.argv[1]))
grandchild = subprocess.Popen([sys.executable, "-S", "-E", "-c", "input()"], pass_fds=[connection.fileno()])
connection.close()
print("ready", flush=True)
grandchild.wait()
"""


async def test_connections_are_counted_over_the_whole_process_tree_until_they_are_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(listener.getsockname()) as client:
            served, _ = listener.accept()
            with subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", TREE, str(served.fileno())],
                pass_fds=[served.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            ) as process:  # fmt: skip
                assert process.stdout is not None and process.stdin is not None
                assert process.stdout.readline() == b"ready\n"
                served.close()
                assert len(process_tree(process.pid)) == 2
                assert established(process.pid, [port]) == 1
                assert established(process.pid, [free_port()]) == 0
                assert not await connections_gone(process.pid, [port], 0.1)
                client.close()  # half closed now: CLOSE_WAIT is still a connection of the child's
                assert established(process.pid, [port]) == 1
                process.stdin.close()
                assert await connections_gone(process.pid, [port], 20)


async def test_connections_that_cannot_be_seen_count_as_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr("agent.traffic.drain.established", forbidden)
    assert not await connections_gone(os.getpid(), [1], 0.02)


def test_a_process_that_has_ended_has_no_connections() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    assert established(process.pid, [1]) == 0


@pytest.mark.parametrize("look", [dump, proc_sockets])
def test_sockets_of_both_families_are_seen_by_netlink_and_by_proc(look: Look) -> None:
    with socket.create_server(("127.0.0.1", 0)) as four:
        port = four.getsockname()[1]
        (seen,) = look([port], [LISTEN])
        assert seen == TcpSocket(
            (b"\x7f\x00\x00\x01", port), (bytes(4), 0), LISTEN, os.fstat(four.fileno()).st_ino
        )
        with socket.create_connection(four.getsockname()) as client:
            accepted, _ = four.accept()
            with accepted:
                (seen,) = look([port], [ESTABLISHED, CLOSE_WAIT])
                assert seen.remote == (b"\x7f\x00\x00\x01", client.getsockname()[1])
                assert seen.inode == os.fstat(accepted.fileno()).st_ino
        assert list(look([port], [SYN_RECV])) == []
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        (seen,) = look([six.getsockname()[1]], [LISTEN])
        assert seen.local[0] == bytes(15) + b"\x01"
        assert seen.inode == os.fstat(six.fileno()).st_ino


@pytest.mark.parametrize("look", [dump, proc_sockets])
def test_many_sockets_are_all_seen(look: Look) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=600) as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        for _ in range(500):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        # While others come and go, /proc may list one twice (it is read in pieces).
        assert len(set(look([port], [ESTABLISHED]))) == 500


def test_without_netlink_proc_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("agent.traffic.sockets.dump", forbidden)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert len(tcp_sockets([listener.getsockname()[1]], [LISTEN])) == 1


async def test_a_taken_port_names_its_holder_without_its_arguments() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = PortSpec(name="http", port=listener.getsockname()[1], address="127.0.0.1")
        (holder,) = listeners(port.port)
        assert holder.pid == os.getpid()
        with pytest.raises(OSError, match="in use") as caught, socket.socket() as other:
            other.bind(("127.0.0.1", port.port))
        failure = await port_failure(port, caught.value)
    assert failure.reason == "PortTaken"
    assert f"(pid {os.getpid()})" in failure.info.message
    assert failure.info.where == f"127.0.0.1:{port.port}"
    assert failure.info.remedy


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "PortForbidden"),
        (OSError(99, "Cannot assign requested address"), "AddressUnavailable"),
        (OSError(98, "Address already in use"), "PortTaken"),
        (OSError(24, "Too many open files"), "PortUnusable"),
    ],
)
async def test_each_way_a_port_is_not_to_be_had_has_its_reason(error: OSError, reason: str) -> None:
    assert (await port_failure(PortSpec(name="http", port=free_port()), error)).reason == reason


@pytest.mark.parametrize(
    ("address", "near"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("127.0.0.2", "127.0.0.2")]
)
def test_a_public_port_is_reached_over_loopback_where_that_is_possible(address: str, near: str) -> None:
    assert near_address(PortSpec(name="http", port=80, address=address)) == (near, 80)
