"""Programs that put themselves into the background: the keeper goes on with whoever goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.keeper.test_adopt import Slot, slot, slot_of
from tests.kit import keepers
from tests.kit.keepers import KeeperProcess, keeper, said, until

__all__ = ["slot"]

DAEMON = """
def daemon():
    if os.fork(): os._exit(0)
    os.setsid()
    if os.fork(): os._exit(0)
def serve():
    s = server(); s.listen(); print("pid", os.getpid(), flush=True)
    return s
"""
BOTH_ORDERS = ["s = serve(); daemon()", "daemon(); s = serve()"]
PATIENCE = "from agent.keeper import children; children.{} = 0.05\n"
WAIT = "\nprint('ready', flush=True)\nsignal.pause()\n"


async def started(slot: Slot, code: str) -> int:
    """Start a program that goes to the background; the pid it has there."""
    await slot.start(DAEMON + code + "\nprint('daemon', os.getpid(), flush=True)" + WAIT)
    await said(slot.client, "x", "ready")
    lines = await slot.client.tail("x")
    return int(next(line for line in lines if line.startswith("daemon")).split()[1])


@pytest.mark.parametrize("code", BOTH_ORDERS)
async def test_a_daemon_is_kept_in_the_place_of_the_process_that_started_it(slot: Slot, code: str) -> None:
    pid = await started(slot, code)
    await until(lambda: slot.client.children["x"].pid == pid)
    record = slot.client.children["x"]
    assert record.running and record.taken == ["http"]
    assert await slot.client.signal("x", signal.SIGTERM)
    assert (await slot.client.wait("x")).signal == signal.SIGTERM
    assert not await slot.client.signal("x", 0)
    await slot.client.forget("x")
    assert not Path(f"/proc/{pid}").exists()


async def test_the_next_agent_is_told_the_daemon(kept: KeeperProcess) -> None:
    first = await kept.agent()
    async with slot_of(first) as slot:
        pid = await started(slot, BOTH_ORDERS[0])
        first.exit(1)
        second = await kept.agent()
        assert second.client.children["x"].pid == pid
        os.kill(pid, signal.SIGKILL)
        assert (await second.client.wait("x")).signal == signal.SIGKILL


async def test_workers_that_lost_their_master_are_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "RUN", PATIENCE.format("DETACH") + keepers.RUN)
    async with keeper() as kept, slot_of(await kept.agent()) as slot:
        await slot.start(DAEMON + "s = serve()\nif os.fork(): os._exit(0)" + WAIT)
        assert (await slot.client.wait("x")).code == 0
        assert await slot.client.signal("x", signal.SIGKILL)  # its group is still there to be ended


async def test_the_keepers_own_copy_which_has_its_slots_open_for_a_moment_is_no_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never_closes = "import os; os.closerange = lambda *_: None\n" + PATIENCE.format("DETACH")
    monkeypatch.setattr(keepers, "RUN", never_closes + keepers.RUN)
    async with keeper(wrapper=["setsid"]) as kept, slot_of(await kept.agent()) as slot:
        await slot.start(DAEMON + "s = serve()\nif os.fork(): os._exit(0)" + WAIT)
        assert (await slot.client.wait("x")).code == 0
        assert await slot.client.signal("x", signal.SIGKILL)


async def test_processes_without_a_slot_are_waited_for_by_nobody(slot: Slot) -> None:
    code = "s = serve()\nif os.fork(): os._exit(0)\ns.close()"
    await slot.start(DAEMON + code + WAIT)
    await said(slot.client, "x", "ready")
    assert (await slot.client.wait("x")).code == 0
    assert await slot.client.signal("x", signal.SIGKILL)


async def test_a_program_that_fails_has_no_heir(slot: Slot) -> None:
    await slot.start(DAEMON + "s = serve()\nif os.fork(): os._exit(3)\nos.setsid()" + WAIT)
    assert (await slot.client.wait("x")).code == 3


async def test_a_program_that_ends_with_its_whole_tree_ends_at_once(slot: Slot) -> None:
    code = "signal.signal(10, lambda *_: os._exit(0))\nif os.fork(): signal.pause()\n"
    code += "os.setsid(); print('pid', os.getpid())"
    await slot.start(DAEMON + code + WAIT)
    await said(slot.client, "x", "ready")
    leader, left = slot.client.children["x"].pid, int((await slot.client.tail("x"))[0].split()[1])
    os.kill(leader, signal.SIGUSR1)
    await until(lambda: not Path(f"/proc/{leader}").exists())
    assert slot.client.children["x"].running
    assert not await slot.client.signal("x", signal.SIGTERM)  # nobody knows whom
    os.kill(left, signal.SIGKILL)
    assert (await slot.client.wait("x")).code == 0


async def test_a_daemon_that_never_binds_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keepers, "RUN", PATIENCE.format("BIND") + keepers.RUN)
    async with keeper() as kept, slot_of(await kept.agent()) as slot:
        await slot.start(DAEMON + "daemon()" + WAIT)
        assert (await slot.client.wait("x")).code == 0


async def test_a_daemon_that_takes_its_time_to_get_a_session_of_its_own_is_found(slot: Slot) -> None:
    code = "s = serve()\nif os.fork(): os._exit(0)\nimport time; time.sleep(0.1); os.setsid()\n"
    pid = await started(slot, code)
    await until(lambda: slot.client.children["x"].pid == pid)


async def test_without_adopt_the_end_of_the_leader_is_the_end(slot: Slot) -> None:
    await slot.start(DAEMON + "daemon()" + WAIT, adopt=False)
    assert (await slot.client.wait("x")).code == 0
