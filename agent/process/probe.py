"""One probe: a single look at whether a child does its work. The verdict over many is `health`.

http speaks a minimal HTTP/1.1 of its own (RFC 9112, one GET, Connection: close), on bare sockets: a probe
from a private source address, a few milliseconds after the start, needs no session, pool or cookie.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from string import punctuation
from urllib.parse import quote

from agent.domain.errors import Failure
from agent.domain.probe_mark import traffic_class
from agent.domain.spec import HealthSpec, ProbeKind
from agent.keeper.client import KeeperLost
from agent.process.accepted import accepted
from agent.process.command import CommandResult

ANSWER_MAX = 1 << 16  # bytes of an answer read at most, head included
IP_BIND_ADDRESS_NO_PORT = 24  # take the local port at connect(2), see ip(7)
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked[ \t]*\r\n", re.IGNORECASE)


async def _no_command(argv: tuple[str, ...], timeout: float) -> CommandResult:
    raise NotImplementedError(f"this target runs no commands: {argv}, {timeout}")


async def _no_word(_limit: asyncio.Timeout) -> str:
    raise NotImplementedError("this target says nothing of itself")


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Whom to probe.

    `host` is an address, `source` gives the local address to probe from at this moment, or None. `alive`
    says whether the child runs. `execute` runs a command as the app would, and takes its own deadline in
    seconds. `ready` waits until the child says that it is ready, and gives its status in words; it may put
    the deadline off.
    """

    host: str = "127.0.0.1"
    port: int = 0
    source: Callable[[], str | None] = lambda: None
    alive: Callable[[], bool] = lambda: True
    ready: Callable[[asyncio.Timeout], Awaitable[str]] = _no_word
    execute: Callable[[tuple[str, ...], float], Awaitable[CommandResult]] = _no_command


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What was seen; `detail` is for people: "HTTP 500 from /healthz in 3 ms"."""

    ok: bool
    detail: str


async def probe(spec: HealthSpec, target: ProbeTarget) -> ProbeResult:
    """Probe once, within `spec.timeout` seconds. A failing probe is a result, not an exception.

    Raises KeeperLost.
    """
    started = time.monotonic()
    look = {ProbeKind.HTTP: _http, ProbeKind.TCP: _tcp, ProbeKind.EXEC: _exec}
    # A command keeps its deadline by itself, and takes a moment more to be stopped.
    try:
        async with asyncio.timeout(None if spec.kind is ProbeKind.EXEC else spec.timeout):
            ok, what = await look.get(spec.kind, _alive)(spec, target)
    except KeeperLost:
        raise
    except TimeoutError:
        return ProbeResult(False, f"no {_awaited(spec)} within {spec.timeout:g} s")
    except ConnectionRefusedError:
        return ProbeResult(False, f"connection refused on port {target.port}")
    except ConnectionError as error:
        return ProbeResult(False, f"connection lost on port {target.port}: {error.strerror or error}")
    except OSError as error:
        return ProbeResult(False, f"{error.strerror or error} on port {target.port}")
    except Failure as error:
        return ProbeResult(False, str(error))
    return ProbeResult(ok, f"{what} in {1000 * (time.monotonic() - started):.0f} ms")


def _awaited(spec: HealthSpec) -> str:
    return f"complete answer from {spec.path}" if spec.kind is ProbeKind.HTTP else "connection accepted"


async def _alive(_spec: HealthSpec, target: ProbeTarget) -> tuple[bool, str]:
    return (True, "runs") if target.alive() else (False, "has ended, seen")


async def _exec(spec: HealthSpec, target: ProbeTarget) -> tuple[bool, str]:
    result = await target.execute(spec.command, spec.timeout)
    return result.ok, f"{spec.command[0]} {result.ended}"


async def _tcp(_spec: HealthSpec, target: ProbeTarget) -> tuple[bool, str]:
    """Connected is not enough: the kernel answers for a listening socket before its program runs."""
    with await _connect(target) as sock:
        await accepted(sock)
    return True, f"connection accepted on port {target.port}"


async def _http(spec: HealthSpec, target: ProbeTarget) -> tuple[bool, str]:
    host = f"[{target.host}]" if ":" in target.host else target.host
    request = (
        f"GET {quote(spec.path, safe=punctuation)} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
        "User-Agent: emptybox-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    with await _connect(target) as sock:
        await loop.sock_sendall(sock, request.encode())
        answer = bytearray()
        while not _complete(answer) and len(answer) < ANSWER_MAX:
            data = await loop.sock_recv(sock, ANSWER_MAX)
            if not data:
                break
            answer += data
    if not answer:
        return False, f"connection closed without an answer from {spec.path}"
    status = _STATUS.match(_final(answer))
    if status is None:
        return False, f"no HTTP answer from {spec.path}"
    return 200 <= int(status[1]) < 400, f"HTTP {int(status[1])} from {spec.path}"


async def _connect(target: ProbeTarget) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in target.host else socket.AF_INET)
    try:
        sock.setblocking(False)
        source = target.source()
        if source is not None and ":" in target.host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class(source))
        elif source is not None:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, (target.host, target.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _final(answer: bytearray) -> bytes:
    """The answer without interim ones (1xx) before it."""
    rest = bytes(answer)
    while rest.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")) and b"\r\n\r\n" in rest:
        rest = rest.partition(b"\r\n\r\n")[2]
    return rest


def _complete(answer: bytearray) -> bool:
    """Whether all is there, as far as the head tells; else the end of the connection does."""
    head, end, body = _final(answer).partition(b"\r\n\r\n")
    if not end:
        return False
    head += b"\r\n"
    if head[9:12] in (b"204", b"304"):
        return True
    if _CHUNKED.search(head):
        return body.endswith(b"0\r\n\r\n")
    length = _LENGTH.search(head)
    return length is not None and len(body) >= int(length[1])
