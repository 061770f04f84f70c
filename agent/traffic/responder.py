"""Answers HTTP requests on an app's public port with the maintenance page: 503, and come back later.

A minimal HTTP/1.1 server (RFC 9112): one request head of at most 16 KiB, one answer, then the
connection is closed, so that a client's next request reaches the new child. Request bodies are read
and dropped, for a close with unread bytes would reset the connection and tear the answer away.

HTTP/2 clients that need no negotiation, gRPC above all, are answered in their own protocol (`http2.py`).
All others are sent nothing, for any byte would be a wrong one: they are kept, and closed at the deadline.
That is also what happens to a TLS handshake, for which there is no certificate here; the log says so once.
Every connection ends by the deadline, and at most 1,000 are looked after at once.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Mapping
from email.utils import formatdate

from agent.domain.events import Bus, RequestsAnswered
from agent.traffic.http2 import NotHttp2, Refusal, begins
from agent.traffic.page import Form, Page, choose

log = logging.getLogger(__name__)

HEAD_MAX = 16 << 10  # bytes
DEADLINE = 5.0  # seconds for a whole connection
LINGER = 1.0  # seconds in which a client may still send what it had begun
AT_ONCE = 1000
REPORT = 1.0  # seconds between two facts about the same thing

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) [^ \r\n]+ HTTP/1\.[01]\r?\n")
_BEGINNING = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,32}( [^\r\n]*\r?)?")
_END = re.compile(rb"\r?\n\r?\n")
_TLS_HANDSHAKE = b"\x16\x03"  # a record of that type, of any version since SSL 3.0 (RFC 8446, section 5.1)
_ACCEPT = re.compile(rb"\r?\naccept[ \t]*:([^\r\n]*)", re.IGNORECASE)


class NotHttp(Exception):
    """What a client sent is no HTTP/1 request; the bytes read so far are its only argument."""


class TooLong(Exception):
    """A request head exceeds HEAD_MAX."""


class Tally:
    """Counts answers and publishes them as facts, at most one a second for each way of answering."""

    def __init__(self, app: str, bus: Bus) -> None:
        self.app = app
        self._bus = bus
        self._counts: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, how: str, count: int = 1) -> None:
        """`count` more were answered: "page" or "held"."""
        if count > 0:
            self._counts[how] = self._counts.get(how, 0) + count
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(REPORT, self.flush)

    def flush(self) -> None:
        """Publish what has been counted and not told yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, {}
        for how, count in counts.items():
            self._bus.publish(RequestsAnswered(self.app, count, how))


class Responder:
    """Answers connections with the page of one app."""

    def __init__(
        self, page: Page, tally: Tally, *, at_once: int = AT_ONCE, deadline: float = DEADLINE
    ) -> None:
        self._page = page
        self._tally = tally
        self._room = asyncio.Semaphore(at_once)
        self._deadline = deadline
        self._told_of_tls = False

    async def answer(self, connection: socket.socket) -> None:
        """Answer one request and close the connection; never raises but when cancelled.

        Args:
            connection: accepted, non-blocking, nothing read from it.
        """
        with connection:
            try:
                async with self._room, asyncio.timeout(self._deadline):
                    await self._converse(connection)
            except OSError:  # the client left, or the deadline passed (TimeoutError is an OSError)
                pass

    async def _converse(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            head = await _read_head(connection)
        except NotHttp as other:
            (begun,) = other.args
            if not begins(begun) or not await self._refuse_http2(connection, begun):
                self._tell_of_tls(begun)
                await _discard(connection)
                return
        except TooLong:
            await loop.sock_sendall(connection, _response("431 Request Header Fields Too Large", {}, b""))
        else:
            if not head:
                return
            await loop.sock_sendall(connection, await self._response(head))
            self._tally.add("page")
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER):
            await _discard(connection)

    async def _refuse_http2(self, connection: socket.socket, data: bytes) -> bool:
        """Refuse what an HTTP/2 client asks for, and say so; False when it is none. Raises OSError."""
        loop = asyncio.get_running_loop()
        refusal = Refusal(self._page.retry_after)
        while True:
            try:
                answer = refusal.receive(data)
            except NotHttp2:
                return False
            await loop.sock_sendall(connection, answer)
            if refusal.done:
                self._tally.add("page", refusal.answered)
                return True
            if not (data := await loop.sock_recv(connection, 4096)):
                return True

    def _tell_of_tls(self, begun: bytes) -> None:
        if begun.startswith(_TLS_HANDSHAKE) and not self._told_of_tls:
            self._told_of_tls = True
            log.warning(
                "clients of %s speak TLS, for which there is no certificate here: while it is not served "
                "they are kept for a moment and closed, and see no maintenance page",
                self._tally.app,
            )

    async def _response(self, head: bytes) -> bytes:
        accept = b",".join(match[1] for match in _ACCEPT.finditer(head))
        form = choose(accept.decode("latin-1"))
        body = await self._page.body(form)
        charset = "; charset=utf-8" if form in (Form.HTML, Form.TEXT) else ""
        fields = {
            "Content-Type": form.value + charset,
            "Retry-After": str(self._page.retry_after),
            "Cache-Control": "no-store",
            "Vary": "Accept",
        }
        response = _response("503 Service Unavailable", fields, body)
        return response[: len(response) - len(body)] if head.startswith(b"HEAD ") else response


def _response(status: str, fields: Mapping[str, str], body: bytes) -> bytes:
    fields = {
        "Date": formatdate(usegmt=True),
        **fields,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("ascii") + body


async def _read_head(connection: socket.socket) -> bytes:
    """A whole request head; b"" when the client left before. Raises NotHttp, TooLong, OSError."""
    loop = asyncio.get_running_loop()
    head = b""
    while True:
        data = await loop.sock_recv(connection, 4096)
        if not data:
            return b""
        head = (head + data).lstrip(b"\r\n")  # empty lines before a request are to be ignored (section 2.2)
        _check_beginning(head)
        end = _END.search(head)
        if end and end.end() <= HEAD_MAX:
            return head[: end.end()]
        if len(head) > HEAD_MAX:
            raise TooLong


def _check_beginning(head: bytes) -> None:
    line, newline, _ = head.partition(b"\n")
    if not (_REQUEST_LINE.fullmatch(line + newline) if newline else _BEGINNING.fullmatch(line)):
        raise NotHttp(head)


async def _discard(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(connection, 64 << 10):
        pass
