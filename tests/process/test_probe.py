from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.errors import Permanent
from agent.domain.spec import HealthSpec, ProbeKind
from agent.keeper.client import KeeperLost
from agent.process.command import CommandResult
from agent.process.probe import ANSWER_MAX, ProbeResult, ProbeTarget, _complete, _final, probe

HTTP = HealthSpec(kind=ProbeKind.HTTP, path="/healthz", timeout=5.0)
TCP = HealthSpec(kind=ProbeKind.TCP, timeout=5.0)
Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(handler: Handler, sock: socket.socket | None = None) -> AsyncIterator[int]:
    """A server that gives each request head to `handler`; yields its port."""
    sock = sock or socket.create_server(("127.0.0.1", 0))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(await reader.readuntil(b"\r\n\r\n"), writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(serve, sock=sock)
    async with running:
        yield int(running.sockets[0].getsockname()[1])


def answering(*parts: bytes) -> Handler:
    async def handler(_head: bytes, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return handler


@pytest.mark.parametrize(
    ("parts", "ok", "detail"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], True, "HTTP 200 from /healthz in "),
        ([b"HTTP/1.0 200\r\n\r\n", b"anything"], True, "HTTP 200 from /healthz in "),
        ([b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"], True, "HTTP 302"),
        ([b"HTTP/1.1 500 Oops\r\n\r\n"], False, "HTTP 500 from /healthz in "),
        ([b"HTTP/1.1 404 Not Found\r\n\r\n"], False, "HTTP 404"),
        ([b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 503 No\r\n\r\n"], False, "HTTP 503"),
        ([b"HTT", b"P/1.1 20", b"4 No Content\r", b"\n\r\n"], True, "HTTP 204"),
        ([b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\n\r\n"], True, "HTTP 200"),
        ([b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 2 * ANSWER_MAX], True, "HTTP 200"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], False, "no HTTP answer from /healthz"),
        ([b"\x15\x03\x01\x00\x02\x02"], False, "no HTTP answer from /healthz"),
        ([b"HTTP/1.1 999 What\r\n\r\n"], False, "no HTTP answer from /healthz"),
        ([], False, "connection closed without an answer from /healthz"),
    ],
)  # fmt: skip
async def test_the_status_decides(parts: list[bytes], ok: bool, detail: str) -> None:
    async with server(answering(*parts)) as port:
        result = await probe(HTTP, ProbeTarget(port=port))
    assert result.ok is ok
    assert result.detail.startswith(detail)


async def test_an_answer_that_is_complete_needs_no_end_of_the_connection() -> None:
    done = asyncio.Event()

    async def handler(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        await done.wait()

    async with server(handler) as port:
        assert (await probe(HTTP, ProbeTarget(port=port))).ok
        done.set()


async def test_the_request_says_who_asks_and_comes_from_the_given_address() -> None:
    seen: list[object] = []

    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        seen.extend((head, writer.get_extra_info("peername")[0]))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with server(handler) as port:
        spec = HealthSpec(kind=ProbeKind.HTTP, path="/a b\r\nX: y?q=1&z=%20", timeout=5.0)
        assert (await probe(spec, ProbeTarget(port=port, source=lambda: "127.83.0.1"))).ok
    assert seen == [
        f"GET /a%20b%0D%0AX:%20y?q=1&z=%20 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "User-Agent: emptybox-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode(),
        "127.83.0.1",
    ]


@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"]
)
async def test_an_answer_that_never_ends_fails_at_the_timeout(part: bytes) -> None:
    done = asyncio.Event()

    async def handler(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        await done.wait()

    async with server(handler) as port:
        spec = HealthSpec(kind=ProbeKind.HTTP, path="/slow", timeout=0.05)
        result = await probe(spec, ProbeTarget(port=port))
        done.set()
    assert result == ProbeResult(False, "no complete answer from /slow within 0.05 s")


async def test_nobody_there_is_said_plainly() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert await probe(HTTP, ProbeTarget(port=port)) == ProbeResult(
            False, f"connection refused on port {port}"
        )
        assert not (await probe(TCP, ProbeTarget(port=port))).ok
    result = await probe(HTTP, ProbeTarget(port=port, source=lambda: "192.0.2.1"))
    assert result.detail == f"Cannot assign requested address on port {port}"


async def test_a_reset_is_a_failure() -> None:
    async def handler(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with server(handler) as port:
        result = await probe(HTTP, ProbeTarget(port=port))
    assert not result.ok


async def test_tcp_wants_more_than_the_kernels_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        impatient = HealthSpec(kind=ProbeKind.TCP, timeout=0.05)
        result = await probe(impatient, ProbeTarget(port=port))
        assert result == ProbeResult(False, "no connection accepted within 0.05 s")
        waiting = asyncio.ensure_future(probe(TCP, ProbeTarget(port=port)))
        for _ in range(2):  # the impatient one's first
            connection, _ = await asyncio.to_thread(listener.accept)
            with connection:
                await asyncio.sleep(0)
        result = await waiting
    assert result.ok
    assert result.detail.startswith(f"connection accepted on port {port} in ")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
async def test_tcp_is_told_of_an_accept_by_a_server_of_both_families() -> None:
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    async with server(answering(), both) as port:
        assert (await probe(TCP, ProbeTarget(port=port))).ok
        assert (await probe(TCP, ProbeTarget(host="::1", port=port))).ok


async def test_exec_is_the_commands_verdict() -> None:
    spec = HealthSpec(kind=ProbeKind.EXEC, command=("bin/check", "-q"), timeout=2.0)
    asked: list[object] = []

    def target(outcome: CommandResult | Exception) -> ProbeTarget:
        async def execute(argv: tuple[str, ...], timeout: float) -> CommandResult:
            asked.append((argv, timeout))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return ProbeTarget(execute=execute)

    assert (await probe(spec, target(CommandResult(0, None, ())))).ok
    result = await probe(spec, target(CommandResult(1, None, ())))
    assert not result.ok
    assert result.detail.startswith("bin/check ended with exit code 1 in ")
    result = await probe(
        spec, target(Permanent("CommandNotFound", "there is no such program", where="bin/check"))
    )
    assert result == ProbeResult(False, "bin/check: there is no such program")
    assert asked[0] == (("bin/check", "-q"), 2.0)
    with pytest.raises(KeeperLost):
        await probe(spec, target(KeeperLost("gone")))


async def test_alive_asks_whether_it_runs() -> None:
    assert (await probe(HealthSpec(), ProbeTarget(alive=lambda: True))).ok
    assert not (await probe(HealthSpec(), ProbeTarget(alive=lambda: False))).ok


@given(st.binary(max_size=300))
def test_no_answer_confuses_the_reader(data: bytes) -> None:
    for prefix in (b"", b"HTTP/1.1 100 \r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: "):
        _complete(bytearray(prefix + data))
        _final(bytearray(prefix + data))
