from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.spec import PortSpec
from agent.traffic.slots import RESPONDER, SLOTS, SlotGroup, accept_waiting, listening, slot_of, waiting
from agent.traffic.steering import PROBE_SOURCE
from tests.traffic.support import group_of


@pytest.fixture
def group() -> Iterator[SlotGroup]:
    sockets = group_of(SLOTS)
    port = PortSpec(name="http", port=sockets[0].getsockname()[1], address="127.0.0.1")
    made = SlotGroup("web/http", port, sockets)
    yield made
    made.close()


def client(group: SlotGroup, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", group.port.port), 10, (source, 0))


@pytest.mark.parametrize("blocking", [True, False])
def test_accepting_takes_who_waits_never_blocks_and_leaves_the_flags_alone(
    group: SlotGroup, blocking: bool
) -> None:
    listener = group.sockets[1]
    group.steer([1])
    os.set_blocking(listener.fileno(), blocking)
    flags = fcntl.fcntl(listener, fcntl.F_GETFL)
    assert accept_waiting(listener) is None
    with client(group):
        accepted = accept_waiting(listener)
        assert accepted is not None
        with accepted:
            assert accepted.gettimeout() == 0.0
    assert accept_waiting(listener) is None
    assert fcntl.fcntl(listener, fcntl.F_GETFL) == flags


def test_accepting_from_a_socket_that_was_shut_down_is_an_error_and_not_a_wait(group: SlotGroup) -> None:
    group.sockets[1].shutdown(socket.SHUT_RDWR)
    assert waiting(group.sockets[1]) == 0
    with pytest.raises(OSError, match="Invalid"):
        accept_waiting(group.sockets[1])


def test_a_lent_slot_is_blocking_again_and_has_its_whole_backlog_again(group: SlotGroup) -> None:
    listener = group.sockets[slot_of(0)]
    os.set_blocking(listener.fileno(), False)
    listener.listen(0)
    group.lend(slot_of(0))
    assert os.get_blocking(listener.fileno())
    group.steer([slot_of(0)])
    clients = [client(group) for _ in range(20)]
    assert waiting(listener) == 20
    for one in clients:
        one.close()


def test_probes_and_others_are_steered_apart_and_together_again(group: SlotGroup) -> None:
    group.steer([1], probe=2)
    with client(group), client(group, PROBE_SOURCE):
        assert [waiting(s) for s in group.sockets] == [0, 1, 1]
    group.steer([2], probe=2)
    with client(group), client(group, PROBE_SOURCE):
        assert [waiting(s) for s in group.sockets] == [0, 1, 3]


@pytest.mark.parametrize("broken", [[1], [2], [0], [1, 2], [0, 1, 2]])
@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1]])
def test_slots_that_a_child_shut_down_are_mended_and_steered_to_rightly(
    group: SlotGroup, order: list[int], broken: list[int]
) -> None:
    if order == [0, 2, 1]:
        group.sockets[1].shutdown(socket.SHUT_RDWR)
        group.mend([1], group.mended_order([1]))
    assert group.order == order
    for slot in broken:
        group.sockets[slot].shutdown(socket.SHUT_RDWR)
    assert group.broken() == broken
    group.mend(broken, group.mended_order(broken))
    assert all(listening(s) for s in group.sockets)
    for slot in range(SLOTS):
        group.steer([slot])
        before = waiting(group.sockets[slot])
        with client(group):
            assert waiting(group.sockets[slot]) == before + 1


@given(st.permutations(range(SLOTS)), st.sets(st.sampled_from(range(SLOTS)), min_size=1), st.data())
def test_the_mended_order_is_the_kernels_in_whatever_order_they_left_and_stays_when_computed_again(
    order: list[int], broken: set[int], data: st.DataObject
) -> None:
    kernel = list(order)
    for slot in data.draw(st.permutations(sorted(broken))):
        hole = kernel.index(slot)
        last = kernel.pop()
        if hole < len(kernel):
            kernel[hole] = last
    group = SlotGroup("key", PortSpec(name="http", port=1), [], list(order))
    group.order = group.mended_order(sorted(broken))
    assert group.order == kernel + sorted(broken)
    assert group.mended_order(sorted(broken)) == group.order


def test_the_responders_slot_is_no_sides() -> None:
    assert {slot_of(0), slot_of(1), RESPONDER} == {0, 1, 2}
