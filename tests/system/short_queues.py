"""A box on a host that lets few clients wait, told apart by a network of its own: run by test_short_queues.

unshare --net python -m tests.system.short_queues DIRECTORY      prints the app's conditions as JSON
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import sys
from pathlib import Path

from tests.kit.box import Box, Load

SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # netdevice(7)
LIMIT = 64


async def main(directory: Path) -> None:
    """Deploy, swap under load, and tell."""
    with socket.socket() as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    Path("/proc/sys/net/core/somaxconn").write_text(str(LIMIT))
    async with Box(directory) as box:
        await box.deploy("1.0", socket=None)
        await box.start()
        await box.proven("1.0")
        async with Load(box.port) as load:
            await box.deploy("2.0", push=True, socket=None)
            await box.proven("2.0")
        assert load.failures == []
        print(json.dumps((await box.app())["conditions"]))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
