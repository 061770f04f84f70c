"""POST /exec: run a command in an app, with its output as it comes. By the socket, or with the token.

The body begins with a line of JSON (`ExecWish`); with `input` what follows that line is what the command
reads, until the body ends. With a `terminal` there follow lines of JSON instead: `{"in": "…"}` in base64, and
`{"rows": …, "columns": …}` when it has another size. The answer is one JSON object a line
(application/x-ndjson): `{"out": "…"}` and `{"err": "…"}` in base64, an empty line now and then while it is
silent, and at last `{"end": {…}}` with code or signal. A command that cannot be started is a problem as of
any wish. The client's end is the command's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from aiohttp import web

from agent.domain.control import Ends, Terminal
from agent.kit.tasks import Owned
from agent.web.access import check_is_no_app, privileged, who
from agent.web.context import CONTEXT
from agent.web.control import BODY_DEADLINE, BODY_MAX, Short, Wish
from agent.web.problem import Problem

TIMEOUT = 600.0  # seconds, where nothing else is asked for
TIMEOUT_MAX = 86400.0
HEARTBEAT = 10.0  # seconds of silence after which something is sent, to see whether anybody is there
WORDS_MAX = 1000
LINE_MAX = 128 << 10  # bytes of a line from a client that has a terminal

REST = web.RequestKey("rest", bytes)  # what came together with the first line

Argument = Annotated[str, msgspec.Meta(max_length=32768, pattern=r"\A[^\0]*\Z")]


Cells = Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class TerminalWish(Wish, frozen=True):
    """What the client's terminal is like; `kind` is its TERM."""

    rows: Cells
    columns: Cells
    kind: Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+-]*\Z")] = "dumb"


class Typed(Wish, frozen=True):
    """A line from a client that has a terminal: what was typed, or its size."""

    typed: Annotated[str, msgspec.Meta(max_length=LINE_MAX)] = msgspec.field(default="", name="in")
    rows: Cells | None = None
    columns: Cells | None = None


class ExecWish(Wish, frozen=True):
    """The first line. `timeout` in seconds; `input`: the rest of the body is what the command reads."""

    app: Short
    command: Annotated[tuple[Argument, ...], msgspec.Meta(min_length=1, max_length=WORDS_MAX)]
    timeout: Annotated[float, msgspec.Meta(gt=0, le=TIMEOUT_MAX)] = TIMEOUT
    input: bool = False
    terminal: TerminalWish | None = None


@privileged
async def run(request: web.Request) -> web.StreamResponse:
    """Run it, and tell its end."""
    check_is_no_app(request)
    wish = await _wished(request)
    answer = _Answer(request)
    ends = Ends(answer.begin, answer.said, _rest(request) if wish.input else None)
    if (terminal := wish.terminal) is not None:
        size = Terminal(terminal.rows, terminal.columns, terminal.kind)
        ends = Ends(answer.begin, answer.said, _typed(_rest(request), size), size)
    async with Owned("exec") as tasks:
        tasks.start(answer.beat(), name="heartbeat")
        try:
            execs = request.app[CONTEXT].control.execs
            end = await execs.run(wish.app, who(request), wish.command, wish.timeout, ends)
            await answer.told({"end": end})
        except (ConnectionError, TimeoutError):
            if not answer.response.prepared:
                raise
    answer.response.force_close()  # what is left of the input is read by nobody
    return answer.response


class _Answer:
    """The answer, begun when the command has."""

    def __init__(self, request: web.Request) -> None:
        self.response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
        self.response.content_type = "application/x-ndjson"
        self._request = request
        self._lock = asyncio.Lock()
        self._quiet = False

    async def begin(self) -> None:
        await self.response.prepare(self._request)

    async def said(self, kind: str, data: bytes) -> None:
        await self.told({kind: base64.b64encode(data).decode()})

    async def told(self, line: dict[str, Any]) -> None:
        async with self._lock:
            self._quiet = False
            await self.response.write(msgspec.json.encode(line) + b"\n")

    async def beat(self) -> None:
        """Send an empty line after each silence; a client that is gone is noticed by that at the latest."""
        while True:
            self._quiet = True
            await asyncio.sleep(HEARTBEAT)
            if self._quiet and self.response.prepared and not self._lock.locked():
                with contextlib.suppress(ConnectionError):  # the handler is cancelled for it
                    async with self._lock:
                        await self.response.write(b"\n")


async def _wished(request: web.Request) -> ExecWish:
    """The first line; what came with it is left to be read. Raises Problem."""
    line = b""
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            while b"\n" not in line and (chunk := await request.content.readany()):
                line += chunk
                if len(line.partition(b"\n")[0]) > BODY_MAX:
                    raise Problem(413, "BodyTooLarge", f"the first line may have at most {BODY_MAX} bytes")
        line, _, rest = line.partition(b"\n")
        request[REST] = rest
        return msgspec.json.decode(line, type=ExecWish)
    except TimeoutError:
        raise Problem(408, "BodyTooSlow", f"no line arrived within {BODY_DEADLINE:g} s") from None
    except web.RequestPayloadError:
        raise Problem(400, "BodyBroken", "the body ended early or is framed wrongly") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "WishUnclear", f"the arguments are wrong: {error}") from None


async def _rest(request: web.Request) -> AsyncIterator[bytes]:
    """What comes after the first line. Raises ConnectionError when it is cut short."""
    yield request[REST]
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except web.RequestPayloadError as error:
        raise ConnectionResetError("the input was cut short") from error


async def _typed(chunks: AsyncIterator[bytes], terminal: Terminal) -> AsyncIterator[bytes | Terminal]:
    """What was typed, and each new size. Raises ConnectionError for what is neither."""
    line = b""
    async for chunk in chunks:
        *lines, line = (line + chunk).split(b"\n")
        if len(line) > LINE_MAX:
            raise ConnectionResetError("a line is too long")
        for one in lines:
            try:
                told = msgspec.json.decode(one, type=Typed)
                data = base64.b64decode(told.typed, validate=True)
            except (ValueError, RecursionError) as error:  # of msgspec and of base64
                raise ConnectionResetError("a line makes no sense") from error
            if data:
                yield data
            if told.rows and told.columns:
                yield Terminal(told.rows, told.columns, terminal.kind)
