"""Adoption by a real keeper: what children bind, what they get, and what they do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.keeper.adopt import OTHER_FAMILY
from tests.kit.keepers import Agent, KeeperProcess, keeper, python, said, until
from tests.kit.ports import free_port

HEAD = """
import ctypes, errno, fcntl, json, os, signal, socket, sys, threading
port = int(sys.argv[1])
def server(family=socket.AF_INET, host="0.0.0.0", port=port, kind=socket.SOCK_STREAM):
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock
def tell(**what): print(json.dumps(what))
def inode(sock): return os.fstat(sock.fileno()).st_ino
"""
WAIT = "\nprint('ready')\nsignal.pause()\n"


class Slot:
    """One public port, held by the keeper, and the adopted children that want it."""

    def __init__(self, agent: Agent, sockets: Sequence[socket.socket], port: int) -> None:
        self.agent = agent
        self.client = agent.client
        self.sockets = sockets
        self.port = port

    async def start(self, code: str, **more: Any) -> None:
        """Start a child `x` that wants slot 1."""
        more = {"slots": [("web", 1, "http")], "adopt": True, **more}
        await self.client.spawn(python("x", HEAD + code, str(self.port), **more))

    async def told(self, code: str, **more: Any) -> dict[str, Any]:
        """Run a child to its end; what it told, and what the keeper told of it."""
        await self.start(code, **more)
        record = await self.client.wait("x")
        lines = await self.client.tail("x")
        await self.client.forget("x")
        assert record.code == 0, lines
        told: dict[str, Any] = json.loads(lines[-1])
        return {**told, "taken": record.taken, "others": record.others, "trouble": record.trouble}

    def is_slot(self, inode: int) -> bool:
        """Whether that is the socket the child was to get."""
        return inode == os.fstat(self.sockets[1].fileno()).st_ino

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@contextlib.asynccontextmanager
async def slot_of(agent: Agent, address: str = "0.0.0.0") -> AsyncIterator[Slot]:
    port = free_port()
    with contextlib.closing(Slot(agent, await agent.client.open("web", address, port, 3), port)) as made:
        yield made


@pytest.fixture
async def slot(agent: Agent) -> AsyncIterator[Slot]:
    async with slot_of(agent) as made:
        yield made


FACTS = """
flags = fcntl.fcntl(s, fcntl.F_GETFL), fcntl.fcntl(s, fcntl.F_GETFD)
tell(name=s.getsockname(), inode=inode(s), nonblocking=bool(flags[0] & os.O_NONBLOCK),
     cloexec=bool(flags[1] & fcntl.FD_CLOEXEC), listens=s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
"""


@pytest.mark.parametrize(("blocking", "inherited"), [(True, False), (False, True)])
async def test_the_socket_becomes_the_slot_with_the_flags_it_had(
    slot: Slot, blocking: bool, inherited: bool
) -> None:
    code = f"s = socket.socket(); s.setblocking({blocking}); s.set_inheritable({inherited})\n"
    told = await slot.told(code + "s.bind(('', port)); s.listen(1)" + FACTS)
    assert slot.is_slot(told.pop("inode"))
    assert told == {
        "name": ["0.0.0.0", slot.port], "nonblocking": not blocking, "cloexec": not inherited, "listens": 1,
        "taken": ["http"], "others": [], "trouble": "",
    }  # fmt: skip


async def test_listen_leaves_the_slot_and_its_backlog_as_they_are(slot: Slot) -> None:
    def backlog() -> int:
        info = slot.sockets[1].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        return int.from_bytes(info[28:32], sys.byteorder)

    before = backlog()
    assert before > 5
    await slot.told("s = server(); s.listen(5); s.listen(2); tell()")
    assert backlog() == before


@pytest.mark.parametrize(
    "bind",
    [
        "server(host='0.0.0.0')",
        "server(host='127.0.0.1')",
        "server(socket.AF_INET6, '::')",
        "server(socket.AF_INET6, '::1')",
        "server(socket.AF_INET6, '::ffff:127.0.0.1')",
        "server(kind=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)",
        "socket.create_server(('', port), reuse_port=True)",
        "socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True)",
    ],
)
async def test_every_way_to_name_the_port_is_the_port(slot: Slot, bind: str) -> None:
    told = await slot.told(f"s = {bind}; s.listen(); tell(inode=inode(s))")
    assert slot.is_slot(told["inode"]) and told["taken"] == ["http"]


async def test_a_slot_on_one_address_is_also_for_who_binds_all_or_loopback(agent: Agent) -> None:
    async with slot_of(agent, "127.0.0.2") as slot:
        for host in ("127.0.0.2", "0.0.0.0", "127.0.0.1"):
            assert slot.is_slot(
                (await slot.told(f"s = server(host={host!r}); tell(inode=inode(s))"))["inode"]
            )


async def test_of_two_slots_the_one_on_the_same_address_is_taken(agent: Agent) -> None:
    port = free_port()
    one = await agent.client.open("one", "127.0.0.1", port, 1)
    two = await agent.client.open("two", "127.0.0.2", port, 1)
    code = "found = [server(host=host) for host in ('127.0.0.2', '127.0.0.1')]\n"
    code += "tell(inodes=[inode(s) for s in found])"
    with contextlib.closing(Slot(agent, (*one, *two), port)) as slot:
        told = await slot.told(code, slots=[("one", 0, "one"), ("two", 0, "two")])
        assert told["inodes"] == [os.fstat(sock.fileno()).st_ino for sock in (*two, *one)]
        assert told["taken"] == ["two", "one"]


async def test_a_socket_that_is_polled_before_it_is_bound_is_told(slot: Slot) -> None:
    code = """
import select
polled = select.epoll(); s = socket.socket(); other = socket.socket(); polled.register(%s, select.EPOLLIN)
s.bind(("", port)); s.listen(); tell()
"""
    assert "epoll" in (await slot.told(code % "s"))["trouble"]
    assert (await slot.told(code % "other"))["trouble"] == ""


@pytest.mark.parametrize(("host", "told"), [("0.0.0.0", OTHER_FAMILY), ("::", "")])
async def test_an_ipv4_socket_that_becomes_an_ipv6_one_is_told(agent: Agent, host: str, told: str) -> None:
    family = "AF_INET6" if ":" in host else "AF_INET"
    code = f"s = socket.socket(socket.{family}); s.bind(({host!r}, port)); s.listen(); tell()"
    async with slot_of(agent, "::") as slot:
        assert (await slot.told(code))["trouble"] == told


async def test_workers_with_a_socket_each_share_one_slot(slot: Slot) -> None:
    code = """
r, w = os.pipe()
for n in range(3):
    if os.fork() == 0:
        s = socket.create_server(("", port), reuse_port=True)
        os.write(w, b"%d " % inode(s))
        os._exit(0)
for n in range(3): os.wait()
tell(inodes=list(map(int, os.read(r, 999).split())))
"""
    told = await slot.told(code)
    assert [slot.is_slot(inode) for inode in told["inodes"]] == [True] * 3


async def test_a_thread_and_a_process_of_another_session_are_adopted_as_well(slot: Slot) -> None:
    code = """
found = []
t = threading.Thread(target=lambda: found.append(inode(server()))); t.start(); t.join()
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.write(w, b"%d" % inode(server()))
    os._exit(0)
tell(inodes=[*found, int(os.read(r, 99))])
"""
    told = await slot.told(code)
    assert [slot.is_slot(inode) for inode in told["inodes"]] == [True, True]


async def test_everything_else_is_bound_as_if_nobody_looked(slot: Slot, tmp_path: Path) -> None:
    code = f"""
other = server(port=0); other.listen()
udp = server(kind=socket.SOCK_DGRAM)
unix = socket.socket(socket.AF_UNIX); unix.bind({str(tmp_path / "sock")!r}); unix.listen()
client = socket.socket(); client.bind(("127.0.0.1", 0)); client.connect(other.getsockname())
other.accept()[0].sendall(b"hello")
try: server(port=other.getsockname()[1])
except OSError as error: twice = error.errno
tell(udp=udp.getsockname()[1], text=client.recv(9).decode(), twice=twice)
"""
    told = await slot.told(code)
    assert told["udp"] == slot.port and told["text"] == "hello" and told["twice"] == errno.EADDRINUSE
    assert stat.S_ISSOCK((tmp_path / "sock").stat().st_mode)
    assert (told["taken"], told["trouble"]) == ([], "")


async def test_the_first_other_ports_are_remembered_to_be_told(slot: Slot) -> None:
    code = """
bound = []
while len(bound) < 40:
    try: bound.append(server(port=10000 + int.from_bytes(os.urandom(2), "big") % 20000))
    except OSError: pass
tell(bound=[s.getsockname()[1] for s in bound])
"""
    told = await slot.told(code)
    assert len(told["others"]) == 16 and told["bound"][0] in told["others"]


async def test_nonsense_gets_the_kernels_own_answer(slot: Slot) -> None:
    code = """
libc = ctypes.CDLL(None, use_errno=True)
s, codes = socket.socket(), []
good = ctypes.create_string_buffer(bytes([2, 0]) + port.to_bytes(2, "big") + bytes(12))
for fd, place, length in [(s.fileno(), ctypes.c_void_p(8), 16), (s.fileno(), ctypes.c_void_p(2**64 - 8), 16),
                          (999, good, 16), (-1, good, 16), (0, good, 16), (s.fileno(), good, 4)]:
    codes.append(libc.bind(fd, place, length) and errno.errorcode[ctypes.get_errno()])
codes.append(libc.listen(999, 1) and errno.errorcode[ctypes.get_errno()])
tell(codes=codes)
"""
    told = await slot.told(code)
    assert told["codes"] == ["EFAULT", "EFAULT", "EBADF", "EBADF", "ENOTSOCK", "EINVAL", "EBADF"]
    assert told["taken"] == []


async def test_without_adopt_a_child_is_handed_its_slot_and_not_trapped(slot: Slot) -> None:
    code = (
        "tell(inode=os.fstat(3).st_ino, fds=os.environ['LISTEN_FDS'], traps=open('/proc/self/status').read()"
    )
    told = await slot.told(code + ".partition('Seccomp_filters:')[2].split()[0])", adopt=False)
    assert slot.is_slot(told["inode"]) and told["fds"] == "1"
    adopted = await slot.told("tell(env=[n for n in os.environ if n.startswith('LISTEN')])")
    assert adopted["env"] == []


# -- over ends and restarts --------------------------------------------------------------------------


async def test_a_child_binds_while_no_agent_is_there(kept: KeeperProcess, slot: Slot, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    os.mkfifo(go)
    await slot.start(f"open({str(go)!r}).read(); server().listen(); open({str(done)!r}, 'w').close()" + WAIT)
    slot.agent.exit(1)
    await until(lambda: not Path(f"/proc/{slot.agent.pid}").exists())
    await asyncio.to_thread(go.write_text, "")
    await until(done.exists)
    agent = await kept.agent()
    assert agent.client.children["x"].taken == ["http"]


async def test_a_gone_tree_leaves_no_descriptor_behind(slot: Slot) -> None:
    held = Path(f"/proc/{slot.client.keeper_pid}/fd")
    await slot.told("server(); tell()")  # the scribe begins with the first line
    before = len(list(held.iterdir()))
    for _ in range(3):
        await slot.told("server(); tell()")
    await until(lambda: len(list(held.iterdir())) <= before)


async def test_a_child_killed_while_it_binds_harms_nobody(slot: Slot) -> None:
    code = "def work():\n  while True: server().close()\n"
    code += "for _ in range(4): threading.Thread(target=work).start()\nprint('ready')"
    for _ in range(5):
        await slot.start(code)
        await said(slot.client, "x", "ready")
        await slot.client.signal("x", 9)
        await slot.client.wait("x")
        await slot.client.forget("x")
    assert (await slot.told("server(); tell()"))["taken"] == ["http"]


async def test_a_bind_interrupted_by_signals_is_made_again(slot: Slot) -> None:
    code = """
signal.signal(signal.SIGALRM, lambda *_: None); signal.siginterrupt(signal.SIGALRM, False)
libc = ctypes.CDLL(None, use_errno=True)
address = ctypes.create_string_buffer(bytes([2, 0]) + port.to_bytes(2, "big") + bytes(12))
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
failed = 0
for _ in range(500):
    s = socket.socket()
    failed += libc.bind(s.fileno(), address, 16) and ctypes.get_errno()
    s.close()
signal.setitimer(signal.ITIMER_REAL, 0); tell(failed=failed)
"""
    told = await slot.told(code)
    assert (told["failed"], told["taken"]) == (0, ["http"])


async def test_closed_slots_adopt_nobody(slot: Slot) -> None:
    code = "signal.pthread_sigmask(signal.SIG_BLOCK, [10]); print('ready'); signal.sigwait([10])\n"
    await slot.start(code + "s = server(); s.listen(); tell(inode=inode(s))")
    await said(slot.client, "x", "ready")
    await slot.client.close_slots("web")
    slot.close()
    await slot.client.signal("x", 10)
    record = await slot.client.wait("x")
    assert (record.code, record.taken, record.others) == (0, [], [slot.port])


async def test_waiting_for_ports_ends_with_the_child(slot: Slot) -> None:
    await slot.start("server(); print('ready')" + WAIT)
    assert (await slot.client.taken("x", ["http"])).taken == ["http"]
    waits = asyncio.ensure_future(slot.client.taken("x", ["http", "another"]))
    await slot.client.signal("x", 9)
    assert not (await waits).running


async def test_a_keeper_that_dies_takes_its_adopted_children_along() -> None:
    async with keeper() as kept, slot_of(await kept.agent()) as slot:
        await slot.start("server().listen()" + WAIT)
        pid = (await slot.client.taken("x", ["http"])).pid
        os.kill(kept.pid, 9)
        await until(
            lambda: not os.path.exists(f"/proc/{pid}") or " Z " in Path(f"/proc/{pid}/stat").read_text()
        )
        slot.close()
