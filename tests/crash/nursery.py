"""Where keepers and agents are born ready: `nursery.py FD`, so that a death costs no start of Python.

It has imported everything once; each keeper is a copy of it (fork(2)), each agent a copy of its keeper, made
by the keeper's own way of starting one, in which only the execve(2) is left out. A line of JSON on the socket
FD asks for a keeper ("fate", "words", "log", "environment"), lines answer with its "pid", later its "code".
The socket's end is the end of all.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

sys.path.append(str(Path(__file__).parents[2]))

PR_SET_NAME = 15


def main(fd: int) -> None:
    """Fork a keeper for each line, until the end of the socket."""
    load()
    sock = socket.socket(fileno=fd)
    poll, children = select.poll(), dict[int, int]()  # pidfd: pid
    poll.register(sock, select.POLLIN)
    rest = b""
    with contextlib.suppress(ConnectionError):  # another way in which it may end
        while True:
            for ready, _ in poll.poll():
                if ready in children:
                    poll.unregister(ready)
                    pid = children.pop(ready)
                    os.close(ready)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    sock.sendall(json.dumps({"pid": pid, "code": code}).encode() + b"\n")
                    continue
                data = sock.recv(1 << 16)
                if not data:
                    raise ConnectionResetError
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    pid = _fork(json.loads(line))
                    poll.register(pidfd := os.pidfd_open(pid), select.POLLIN)
                    children[pidfd] = pid
                    sock.sendall(json.dumps({"pid": pid}).encode() + b"\n")
    for pid in children.values():
        os.kill(pid, signal.SIGTERM)


def load() -> None:
    """Import what a keeper and an agent need."""
    from agent.kit.lean_aiohttp import load as aiohttp

    aiohttp()
    for name in ("agent.app", "tests.crash.mortal_keeper"):
        importlib.import_module(name)


def _fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _become_keeper(order)
    return pid


def _become_keeper(order: dict[str, Any]) -> NoReturn:
    null, log = os.open("/dev/null", os.O_RDWR), os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for place, fd in enumerate((null, log, log)):
        os.dup2(fd, place)
    os.closerange(3, 1 << 10)
    os.environ.update(order["environment"])
    from tests.crash.mortal_keeper import keep

    end(lambda: keep(order["fate"], order["words"]), "mortal_keeper")


def end(live: Callable[[], int], name: str) -> NoReturn:
    """Be a process of this name to its end: what called this is another life."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
        code = live()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def become(environment: Mapping[str, str], live: Callable[[], int], name: str) -> NoReturn:
    """What execve(2) of an interpreter would do: descriptors, signals, environment; then another life."""
    for fd in sorted(map(int, os.listdir("/proc/self/fd"))):
        with contextlib.suppress(OSError):
            if fd > 2 and not os.get_inheritable(fd):
                os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end(live, name)


if __name__ == "__main__":
    main(int(sys.argv[1]))
