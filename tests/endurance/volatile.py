"""A disk with a write cache that a power cut empties, served over a Unix socket by the NBD protocol.

What a client writes counts as on the disk once a flush (or FUA) has come after it. `cut` is the power cut: of
everything since, each sector is on the disk or not, as the dice say, whatever the order of the writes was.
`fail_after` has the power fail with a certain write: nothing is answered from then on, so that it falls
between a write and its flush, where a cut at a random time hardly ever does.

Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, fixed newstyle, simple replies.
"""

from __future__ import annotations

import asyncio
import os
import random
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

SECTOR = 4096  # of today's disks; half a superblock, with 512, is more than ext4 can bear
MAGIC, OPTION, REPLY = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
REQUEST, ANSWER = 0x25609513, 0x67446698
GO, ABORT = 7, 2
ACK, INFO, UNSUPPORTED = 1, 3, 0x80000001
READ, WRITE, DISCONNECT, FLUSH = range(4)
FUA, INVALID = 1, 22
FLAGS = 1 | 4 | 8  # has flags, takes flushes, takes FUA
CHANCES = (0.0, 0.5, 0.9, 1.0)  # that a sector survives, or a whole write


class VolatileDisk:
    """`path` is what is on the disk; `path` with .now what the machine sees while it has power."""

    def __init__(self, path: Path, socket: Path) -> None:
        self.flushes = self.writes = self.lost = 0
        self.failed = asyncio.Event()
        self._until_failure = 0
        self._cut = asyncio.Event()
        self._socket = socket
        self._disk = os.open(path, os.O_RDWR)
        self.size = os.fstat(self._disk).st_size
        self._now = os.open(path.with_suffix(".now"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        _copy(self._disk, self._now, self.size)
        self._pending: list[tuple[int, bytes]] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        os.close(self._disk)
        os.close(self._now)

    # -- the disk ----------------------------------------------------------------------------------

    def read(self, offset: int, length: int) -> bytes:
        """As the machine sees it."""
        return os.pread(self._now, length, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Into the cache."""
        os.pwrite(self._now, data, offset)
        self._pending.append((offset, data))

    def flush(self) -> None:
        """All of the cache to the disk."""
        self.flushes += 1
        for offset, data in self._pending:
            os.pwrite(self._disk, data, offset)
        self._pending.clear()

    def fail_after(self, writes: int) -> None:
        """The power fails with that many-th write from now: `failed` is set then."""
        self._until_failure = writes

    def cut(self, dice: random.Random) -> None:
        """The power is gone: some of what was never flushed is on the disk, the rest is not."""
        self._cut.set()
        self._cut, self.failed, self._until_failure = asyncio.Event(), asyncio.Event(), 0
        chance, step = dice.choice(CHANCES), dice.choice((SECTOR, 1 << 30))
        for offset, data in self._pending:
            for start in range(0, len(data), step):
                if dice.random() < chance:
                    os.pwrite(self._disk, data[start : start + step], offset + start)
                else:
                    self.lost += 1
        for offset, data in self._pending:
            os.pwrite(self._now, os.pread(self._disk, len(data), offset), offset)
        self._pending.clear()

    # -- the protocol ------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # its machine was killed
            if await self._agree(reader, writer):
                while await self._request(reader, writer):
                    await writer.drain()
        writer.close()

    async def _agree(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Options until there is nothing more to agree on; whether requests follow."""
        writer.write(MAGIC + OPTION + struct.pack(">H", 3))  # fixed newstyle, no zeroes
        await reader.readexactly(4)
        while True:
            _, option, length = struct.unpack(">8sII", await reader.readexactly(16))
            await reader.readexactly(length)

            def reply(kind: int, data: bytes = b"", option: int = option) -> None:
                writer.write(struct.pack(">QIII", REPLY, option, kind, len(data)) + data)

            if option == GO:
                reply(INFO, struct.pack(">HQH", 0, self.size, FLAGS))
                reply(INFO, struct.pack(">HIII", 3, 1, 4096, 32 << 20))
                reply(ACK)
                return True
            reply(ACK if option == ABORT else UNSUPPORTED)
            if option == ABORT:
                return False

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readexactly(28)
        magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI", head)
        assert magic == REQUEST
        data, error = b"", 0
        if kind == READ:
            data = self.read(offset, length)
        elif kind == WRITE:
            self.write(offset, await reader.readexactly(length))
            self.writes += 1
            self._until_failure -= 1
            if self._until_failure == 0:
                self.failed.set()
                await self._cut.wait()
                return False
            if flags & FUA:
                self.flush()
        elif kind == FLUSH:
            self.flush()
        elif kind == DISCONNECT:
            return False
        else:
            error = INVALID
        writer.write(struct.pack(">IIQ", ANSWER, error, cookie) + data)
        return True


def _copy(source: int, target: int, size: int) -> None:
    os.ftruncate(target, size)
    position = 0
    while position < size:
        position += os.sendfile(target, source, position, size - position)
