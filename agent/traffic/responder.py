"""Answers HTTP requests on an app's public port with the maintenance page: 503, and come back later.

A minimal HTTP/1.1 server (RFC 9112): one request head of at most 16 KiB, one answer, then the
connection is closed, so that a client's next request reaches the new child. Request bodies are read
and dropped, for a close with unread bytes would reset the connection and tear the answer away.

Clients that do not speak HTTP/1 are sent nothing (any byte would be a wrong one); they are closed at the
deadline. Every connection ends by then, and at most 1,000 are looked after at once.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from email.utils import formatdate

from agent.domain.events import Bus, RequestsAnswered
from agent.traffic.page import Form, Page, choose

HEAD_MAX = 16 << 10  # bytes
DEADLINE = 5.0  # seconds for a whole connection
LINGER = 1.0  # seconds in which a client may still send what it had begun
AT_ONCE = 1000
REPORT = 1.0  # seconds between two facts about the same thing

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) [^ \r\n]+ HTTP/1\.[01]\r?\n")
_BEGINNING = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,32}( [^\r\n]*\r?)?")
_END = re.compile(rb"\r?\n\r?\n")
_ACCEPT = re.compile(rb"\r?\naccept[ \t]*:([^\r\n]*)", re.IGNORECASE)


class NotHttp(Exception):
    """What a client sent is no HTTP/1 request."""


class TooLong(Exception):
    """A request head exceeds HEAD_MAX."""


class Tally:
    """Counts answers and publishes them as facts, at most one a second for each way of answering."""

    def __init__(self, app: str, bus: Bus) -> None:
        self._app = app
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
            self._bus.publish(RequestsAnswered(self._app, count, how))


class Responder:
    """Answers connections with the page of one app."""

    def __init__(
        self, page: Page, tally: Tally, *, at_once: int = AT_ONCE, deadline: float = DEADLINE
    ) -> None:
        self._page = page
        self._tally = tally
        self._room = asyncio.Semaphore(at_once)
        self._deadline = deadline

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
        except NotHttp:
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
        raise NotHttp


async def _discard(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(connection, 64 << 10):
        pass
