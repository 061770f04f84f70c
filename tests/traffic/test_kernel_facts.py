"""The facts about Linux that the gate is built on. One that fails here fails there."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.traffic.slots import listening, waiting
from agent.traffic.steering import (
    PROBE_SOURCE,
    always,
    attach,
    by_number,
    numbered_source,
    probe_first,
    split_probe,
    split_share,
    spread,
)
from tests.traffic.support import eventually, group_of

TCP_DEFER_ACCEPT = 9


@contextmanager
def group(count: int = 3) -> Iterator[list[socket.socket]]:
    sockets = group_of(count)
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


@contextmanager
def clients(
    sockets: list[socket.socket], count: int, source: str = "127.0.0.1"
) -> Iterator[list[socket.socket]]:
    port = next(sock for sock in sockets if sock.fileno() >= 0).getsockname()[1]
    made = [socket.create_connection(("127.0.0.1", port), 10, (source, 0)) for _ in range(count)]
    try:
        yield made
    finally:
        for client in made:
            client.close()


def join(sock: socket.socket, address: tuple[str, int]) -> None:
    sock.bind(address)
    sock.listen()


def queues(sockets: list[socket.socket]) -> list[int]:
    return [waiting(sock) if sock.fileno() >= 0 else -1 for sock in sockets]


@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_program_attached_through_any_member_sends_every_connection_to_its_index(member: int) -> None:
    with group() as sockets:
        attach(sockets[member], always(2))
        with clients(sockets, 50):
            assert queues(sockets) == [0, 0, 50]


def test_a_flip_takes_effect_for_the_very_next_connection() -> None:
    with group() as sockets:
        for index in range(3):
            attach(sockets[0], always(index))
            with clients(sockets, 1):
                assert waiting(sockets[index]) == 1


def test_probes_are_told_apart_by_their_source_address() -> None:
    with group() as sockets:
        attach(sockets[0], split_probe(2, 1))
        with clients(sockets, 5, PROBE_SOURCE), clients(sockets, 7):
            assert queues(sockets) == [0, 7, 5]


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_a_share_of_new_connections_is_drawn_at_random(percent: int) -> None:
    drawn, count = 0, 3000
    with group() as sockets:
        attach(sockets[0], split_share(percent, always(2), always(1)))
        for _ in range(10):
            with clients(sockets, count // 10):
                assert sum(queues(sockets)) == count // 10
                drawn += waiting(sockets[2])
                for sock in sockets[1:]:
                    while waiting(sock):
                        sock.accept()[0].close()
    expected = count * percent / 100
    deviation = (expected * (1 - percent / 100)) ** 0.5
    assert abs(drawn - expected) < 6 * deviation  # once in 500 million runs it is more


def test_probes_are_told_apart_before_the_lot_is_drawn() -> None:
    with group() as sockets:
        attach(sockets[0], probe_first(always(0), split_share(99, always(2), always(1))))
        with clients(sockets, 50, PROBE_SOURCE), clients(sockets, 50):
            assert queues(sockets)[0] == 50


@pytest.mark.parametrize("indices", [[1], [0, 2], [2, 1, 0]])
def test_connections_are_spread_over_several_indices_and_over_no_other(indices: list[int]) -> None:
    with group() as sockets:
        attach(sockets[0], spread(indices))
        with clients(sockets, 300):
            found = queues(sockets)
        assert sum(found) == 300
        assert [index for index, waits in enumerate(found) if waits] == sorted(indices)
        assert min(found[index] for index in indices) > 40, "as often as another"


def test_a_prober_reaches_each_index_by_its_number_and_others_go_on_as_they_did() -> None:
    with group() as sockets:
        attach(sockets[0], by_number(always(1)))
        for index, sock in enumerate(sockets):
            before = waiting(sock)
            with clients(sockets, 1, numbered_source(index)):
                assert waiting(sock) == before + 1
        before = waiting(sockets[1])
        with clients(sockets, 3):
            assert waiting(sockets[1]) == before + 3


def test_index_is_the_order_of_listen_and_not_of_bind() -> None:
    first, second = socket.socket(), socket.socket()
    with first, second:
        port = 0
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", port))
            port = sock.getsockname()[1]
        second.listen()
        first.listen()
        attach(first, always(0))
        with clients([first], 5):
            assert (waiting(first), waiting(second)) == (0, 5)


def test_the_last_member_moves_into_the_hole_when_one_closes_so_slots_must_be_static() -> None:
    with group() as sockets:
        attach(sockets[0], always(1))
        sockets[1].close()
        with clients(sockets, 5):
            assert queues(sockets) == [0, -1, 5]


def test_a_duplicate_keeps_a_member_and_its_index_alive() -> None:
    with group() as sockets, sockets[1].dup() as duplicate:
        attach(sockets[0], always(1))
        sockets[1].close()
        with clients(sockets, 5):
            assert waiting(duplicate) == 5


def test_shutdown_of_a_duplicate_takes_the_member_out_and_listen_puts_it_back_at_the_end() -> None:
    with group() as sockets:
        with sockets[1].dup() as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
        assert [listening(sock) for sock in sockets] == [True, False, True]
        sockets[1].listen(4096)
        for index, member in enumerate([0, 2, 1]):
            attach(sockets[0], always(index))
            with clients(sockets, 3):
                assert waiting(sockets[member]) == 3


def test_an_index_beyond_the_members_falls_back_to_a_hash_over_all() -> None:
    with group() as sockets:
        attach(sockets[0], always(3))
        with clients(sockets, 300):
            assert sum(queues(sockets)) == 300
            assert min(queues(sockets)) > 0


def test_listen_on_a_listening_socket_changes_its_backlog_and_not_its_index() -> None:
    with group() as sockets:
        sockets[1].listen(1)
        attach(sockets[0], always(1))
        sockets[1].listen(4096)
        with clients(sockets, 50):
            assert queues(sockets) == [0, 50, 0]


def test_a_program_attached_before_listen_founds_another_group() -> None:
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("127.0.0.1", 0))
        first.listen()
        attach(second, always(0))
        with pytest.raises(OSError, match="in use"):
            join(second, first.getsockname())


def test_flags_are_shared_by_duplicates_and_a_waiting_accept_outlives_their_change() -> None:
    with group(1) as sockets, sockets[0].dup() as duplicate:
        os.set_blocking(sockets[0].fileno(), False)
        assert fcntl.fcntl(duplicate, fcntl.F_GETFL) & os.O_NONBLOCK
        os.set_blocking(duplicate.fileno(), True)
        assert not fcntl.fcntl(sockets[0], fcntl.F_GETFL) & os.O_NONBLOCK


async def test_a_handshake_under_way_at_the_flip_lands_on_the_old_member_afterwards() -> None:
    with group() as sockets:
        # With TCP_DEFER_ACCEPT a handshake stays in SYN_RECV until the client's first byte.
        sockets[1].setsockopt(socket.IPPROTO_TCP, TCP_DEFER_ACCEPT, 10)
        attach(sockets[0], always(1))
        with clients(sockets, 1) as (early,):
            attach(sockets[0], always(2))
            assert queues(sockets) == [0, 0, 0]
            early.sendall(b"x")
            await eventually(lambda: queues(sockets) == [0, 1, 0])


def test_departed_clients_still_count_in_the_queue() -> None:
    with group() as sockets:
        attach(sockets[0], always(0))
        with clients(sockets, 3):
            pass
        assert queues(sockets) == [3, 0, 0]
