"""The trap's filter, the kernel's structures, and the places where there are no such filters."""

from __future__ import annotations

import errno
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.keeper.adopt import notice, trap
from agent.keeper.client import SpawnFailed
from tests.keeper.test_adopt import FACTS, slot_of
from tests.kit import sandbox
from tests.kit.keepers import keeper, python, request

STEP = struct.Struct("=HBBI")


def run_filter(code: bytes, number: int, architecture: int) -> int:
    """What a seccomp filter returns, by the rules of classic BPF."""
    steps = [STEP.unpack_from(code, at) for at in range(0, len(code), STEP.size)]
    at = loaded = 0
    while True:
        kind, yes, no, value = steps[at]
        at += 1
        if kind == 0x06:
            return int(value)
        if kind == 0x20:
            loaded = {0: number, 4: architecture}[value]
        elif kind == 0x15:
            at += yes if loaded == value else no


@pytest.mark.parametrize("machine", trap.CALLS)
def test_the_filter_stops_bind_and_listen_of_its_own_architecture_and_nothing_else(machine: str) -> None:
    architecture, _, bind, listen = trap.CALLS[machine]
    code = trap.program(architecture, bind, listen)
    for number in (bind, listen):
        assert run_filter(code, number, architecture) == trap.RET_USER_NOTIF
        assert run_filter(code, number, 0x40000003) == trap.RET_ALLOW  # i386: other numbers
        assert run_filter(code, number | 0x40000000, architecture) == trap.RET_ALLOW  # x32
    others = set(range(600)) - {bind, listen}
    assert {run_filter(code, number, architecture) for number in others} == {trap.RET_ALLOW}


def test_structures_and_ioctls_are_the_kernels() -> None:
    def ioctl(direction: int, number: int, size: int) -> int:
        return direction << 30 | size << 16 | ord("!") << 8 | number  # _IOC, linux/seccomp.h

    assert (notice.NOTIF.size, notice.RESP.size, notice.ADD.size) == (80, 24, 24)
    assert ioctl(3, 0, notice.NOTIF.size) == notice.RECV
    assert ioctl(3, 1, notice.RESP.size) == notice.SEND
    assert ioctl(1, 2, notice.ID.size) == notice.ID_VALID
    assert ioctl(1, 3, notice.ADD.size) == notice.ADDFD


def test_a_machine_whose_numbers_are_not_known_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(trap, "CALLS", {})
        with pytest.raises(OSError, match="not known") as caught:
            trap.calls()
    assert caught.value.errno == errno.ENOSYS


# -- narrower places ---------------------------------------------------------------------------------


def place(name: str) -> list[str]:
    """The command that starts another one there."""
    if name == "before Linux 5.19":
        return sandbox.refusing(f"{sandbox.seccomp_number()}={errno.EINVAL}@1&{trap.WAIT_KILLABLE_RECV}")
    if name == "nobody":
        return sandbox.unprivileged()
    if name == "root without capabilities":
        return ["setpriv", "--bounding-set=-all"]
    return sandbox.in_docker(root=name == "docker root") if name.startswith("docker") else []


@pytest.mark.root
@pytest.mark.parametrize(
    "name", ["nobody", "docker root", "docker nobody", "root without capabilities", "before Linux 5.19"]
)
async def test_a_child_is_adopted_in_a_narrow_place(name: str) -> None:
    sandbox.as_root()
    async with keeper(wrapper=place(name)) as kept, slot_of(await kept.agent()) as slot:
        told = await slot.told("s = server(); s.listen()" + FACTS)
        assert slot.is_slot(told["inode"]) and told["trouble"] == ""


BINDER = """
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/prctl.h>
int main(int n, char **v) {
  if (n > 2) prctl(PR_SET_DUMPABLE, 0);
  struct sockaddr_in a = {AF_INET, htons(atoi(v[1]))};
  int s = socket(AF_INET, SOCK_STREAM, 0);
  return bind(s, (void *)&a, sizeof a) ? 3 : 0;
}
"""


@pytest.fixture
def binder() -> Iterator[Path]:
    """A program that binds the port it is given; every user may run it."""
    with tempfile.TemporaryDirectory(prefix="binder-") as directory:
        os.chmod(directory, 0o755)
        yield sandbox.compiled(BINDER, Path(directory) / "binder")


@pytest.mark.root
@pytest.mark.parametrize("name", ["root", "docker root"])
async def test_a_child_of_another_user_is_adopted(name: str, binder: Path) -> None:
    sandbox.as_root()
    async with keeper(wrapper=place(name)) as kept, slot_of(await kept.agent()) as slot:
        who = {"uid": sandbox.NOBODY, "gid": sandbox.NOBODY, "groups": [sandbox.NOBODY]}
        wanted = request("x", [str(binder), str(slot.port)], slots=[("web", 1, "http")], adopt=True, **who)
        await slot.client.spawn(wanted)
        record = await slot.client.wait("x")
        assert (record.code, record.taken, record.trouble) == (0, ["http"], "")


@pytest.mark.root
async def test_a_program_that_cannot_be_seen_binds_by_itself_and_that_is_told(binder: Path) -> None:
    """No unprivileged process may look at an undumpable one, as are those whose file may only be executed."""
    async with keeper(wrapper=sandbox.unprivileged()) as kept, slot_of(await kept.agent()) as slot:
        wanted = request("x", [str(binder), str(slot.port), "hide"], slots=[("web", 1, "http")], adopt=True)
        await slot.client.spawn(wanted)
        record = await slot.client.wait("x")
        assert (record.code, record.taken, record.trouble) == (3, [], os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("condition", "code"), [("", errno.ENOSYS), ("", errno.EPERM), (f"@1&{trap.NEW_LISTENER}", errno.EINVAL)]
)
async def test_a_place_without_such_filters_is_told_at_the_start(condition: str, code: int) -> None:
    rule = f"{sandbox.seccomp_number()}={code}{condition}"
    async with keeper(wrapper=sandbox.refusing(rule)) as kept, slot_of(await kept.agent()) as slot:
        with pytest.raises(SpawnFailed) as caught:
            await slot.start("tell()")
        assert (caught.value.stage, caught.value.errno) == ("adopt", code)
        assert slot.client.children == {}


async def test_a_keeper_that_is_itself_trapped_can_trap_nobody() -> None:
    code = "import os, sys; from agent.keeper.adopt import trap; os.set_inheritable(trap.install(), True)\n"
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    async with keeper(wrapper=[sys.executable, "-P", "-c", code]) as kept:
        client = (await kept.agent()).client
        with pytest.raises(SpawnFailed) as caught:
            await client.spawn(python("x", "pass", adopt=True))
        assert (caught.value.stage, caught.value.errno) == ("adopt", errno.EBUSY)
