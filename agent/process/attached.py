"""Commands with somebody at the other end: what they say goes out as it comes, and is kept nowhere.

    program --pipe or terminal--> agent --`Ends.give`--> whoever asked
            <--pipe or terminal--       <--`Ends.input`--

Nothing is taken from a pipe before the chunk before it was taken by whoever asked: a command that says more
than is read waits, as in a shell. When that somebody goes away, or the deadline passes, it is stopped; and
with it, as when it ends by itself, ends whatever it started. A terminal is a pty(7) whose master is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import io
import os
import struct
import termios
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from agent.domain.control import Ends, Terminal
from agent.domain.model import new_id
from agent.kit.tasks import uninterrupted, unless
from agent.process.command import CommandResult, abandon, finish
from agent.process.context import ChildContext
from agent.process.keepers import Keeper

CHUNK = 32 << 10  # bytes that are on their way at a time, of each pipe
REST = 1 << 20  # bytes that are still taken once it has ended, of each pipe
LAST_WORDS = 30.0  # seconds for whoever asked to take these


async def run_attached(
    keeper: Keeper, *, name: str, argv: Sequence[str], context: ChildContext, timeout: float, ends: Ends
) -> CommandResult:
    """Run a command to its end, at most `timeout` seconds; cancelled, it is stopped.

    The keeper must be one that `gives_stdio`. Raises what `ChildContext.spawn` raises, and ConnectionError
    when `ends` are gone (then it was stopped).
    """
    child = new_id(f"{context.app}/{name}")
    context = replace(context, prefix=f"{context.app}/{name}")
    terminal = ends.terminal
    if terminal is not None:
        context = replace(context, environment={**context.environment, "TERM": terminal.kind})
    with contextlib.ExitStack() as ours:
        with contextlib.ExitStack() as theirs:
            if terminal is None:
                given, said, feed = _pipes(ours, theirs, ends)
            else:
                given, said, feed = _pty(ours, theirs, terminal, context)
            started = time.monotonic()
            await context.spawn(keeper, child, argv, stdio=given, terminal=terminal is not None)
        ended, gone = asyncio.Event(), asyncio.Event()
        try:
            await ends.started()
            async with asyncio.TaskGroup() as group:
                pumps = [
                    group.create_task(_pump(pipe, kind, ends, ended, gone), name=f"{child} {kind}")
                    for kind, pipe in said.items()
                ]
                feeding = group.create_task(_feed(feed, ends.input, gone), name=f"{child} in")
                late = await _ends(keeper, child, timeout, gone)
                feeding.cancel()
                result = await uninterrupted(finish(keeper, child, late, context), name=f"finish {child}")
                ended.set()
                await asyncio.wait(pumps, timeout=LAST_WORDS)
                for pump in pumps:
                    pump.cancel()
        except BaseException:
            if child in keeper.children:
                await abandon(keeper, child, context)
            raise
    if gone.is_set():
        raise ConnectionError("nobody listens any more")
    record, lines, limit = result
    seconds, over = time.monotonic() - started, timeout if late else None
    return CommandResult(record.code, record.signal, tuple(lines), seconds, over, limit)


async def _ends(keeper: Keeper, child: str, timeout: float, gone: asyncio.Event) -> bool:
    """Wait for the end of a command; True: it has to be brought about."""
    try:
        async with asyncio.timeout(timeout):
            return await unless(gone, keeper.wait(child), name=f"wait {child}") is None
    except TimeoutError:
        return True


async def _pump(pipe: io.FileIO, kind: str, ends: Ends, ended: asyncio.Event, gone: asyncio.Event) -> None:
    """Pass on what a command says, until it has ended and all that is there was passed on."""
    rest = REST
    while rest > 0 and not gone.is_set():
        data = _read(pipe)
        if data is None:  # nothing is there now
            if ended.is_set():
                return
            await unless(ended, _stirs(pipe, writing=False), name=f"read {kind}")
            continue
        if not data:
            return
        rest -= len(data) if ended.is_set() else 0
        try:
            await ends.give(kind, data)
        except (ConnectionError, TimeoutError):
            gone.set()


def _read(pipe: io.FileIO) -> bytes | None:
    """What is there to be read, None: nothing now; empty when nobody is left who could write."""
    try:
        return pipe.read(CHUNK)
    except OSError as error:
        if error.errno != errno.EIO:  # what a terminal says that nobody has open
            raise
        return b""


async def _feed(pipe: io.FileIO, chunks: AsyncIterator[bytes | Terminal] | None, gone: asyncio.Event) -> None:
    """Pass on what a command is to read, and its end; no more once it has stopped reading."""
    if chunks is None:
        return
    try:
        async for chunk in chunks:
            if isinstance(chunk, Terminal):
                _resize(pipe.fileno(), chunk)
                continue
            while chunk:
                written = pipe.write(chunk)
                if written is None:
                    await _stirs(pipe, writing=True)
                else:
                    chunk = chunk[written:]
        pipe.close()  # only here: a client that went away must not look like the end of its input
    except BrokenPipeError:
        pass
    except ConnectionError:
        gone.set()
    except OSError as error:
        if error.errno != errno.EIO:  # as in `_read`
            raise


async def _stirs(pipe: io.FileIO, *, writing: bool) -> None:
    """Wait until a pipe can be read or written."""
    loop = asyncio.get_running_loop()
    stirred: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    fd = pipe.fileno()

    def stir() -> None:
        if not stirred.done():
            stirred.set_result(None)

    add(fd, stir)
    try:
        await stirred
    finally:
        remove(fd)


def _pipes(
    ours: contextlib.ExitStack, theirs: contextlib.ExitStack, ends: Ends
) -> tuple[Sequence[int], Mapping[str, io.FileIO], io.FileIO]:
    """Three pipes: the program's ends of them, those it is heard at, and the one it is fed by."""
    out, said = _pipe(ours, theirs)
    err, complained = _pipe(ours, theirs)
    read, feed = _pipe(theirs, ours)
    if ends.input is None:
        feed.close()
        read = theirs.enter_context(io.FileIO(os.devnull, "rb"))
    for mine in (out, err, *([] if feed.closed else [feed])):
        os.set_blocking(mine.fileno(), False)
    return (read.fileno(), said.fileno(), complained.fileno()), {"out": out, "err": err}, feed


def _pty(
    ours: contextlib.ExitStack, theirs: contextlib.ExitStack, terminal: Terminal, context: ChildContext
) -> tuple[Sequence[int], Mapping[str, io.FileIO], io.FileIO]:
    """The same, by a terminal that is the user's of the program."""
    master, slave = os.openpty()
    out = ours.enter_context(io.FileIO(master, "rb"))
    feed = ours.enter_context(io.FileIO(os.dup(master), "wb"))
    theirs.enter_context(io.FileIO(slave, "rb"))
    _resize(slave, terminal)
    if context.user.uid is not None:
        os.fchown(slave, context.user.uid, -1)
    os.set_blocking(master, False)
    return (slave,) * 3, {"out": out}, feed


def _resize(fd: int, terminal: Terminal) -> None:
    """Give a terminal its size; its program is told by WINCH."""
    size = struct.pack("HHHH", terminal.rows, terminal.columns, 0, 0)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, size)


def _pipe(reads: contextlib.ExitStack, writes: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    """A pipe, and who closes which end of it."""
    reading, writing = os.pipe()
    read = reads.enter_context(io.FileIO(reading, "rb"))
    return read, writes.enter_context(io.FileIO(writing, "wb"))
