"""A program: sends signed deliveries of 8 kB as fast as they are answered, from several connections.

    webhook_client.py HOST PORT SECONDS CONNECTIONS < {"secret", "repository", "commit"}

Prints, as JSON, how many were answered by status, and in how many seconds. Each delivery has an id of its
own; they are signed once, as the id is not part of what is signed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
import time
from collections import Counter
from typing import Any

SIZE = 8192


def request(given: dict[str, Any], host: str) -> tuple[bytes, bytes]:
    """The request before and after the delivery's id."""
    push = {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": given["commit"],
        "repository": {"full_name": "bench/state", "clone_url": given["repository"]},
        "commits": [],
        "padding": "",
    }
    push["padding"] = "x" * (SIZE - len(json.dumps(push)))
    body = json.dumps(push).encode()
    signature = hmac.new(given["secret"].encode(), body, hashlib.sha256).hexdigest()
    head = (
        f"POST /webhook HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nX-Gitea-Event: push\r\nX-Gitea-Signature: {signature}\r\n"
        "X-Gitea-Delivery: "
    )
    return head.encode(), b"\r\n\r\n" + body


async def lane(
    host: str, port: int, number: int, parts: tuple[bytes, bytes], until: float, seen: Counter[str]
) -> None:
    """One connection, one delivery after the other."""
    reader, writer = await asyncio.open_connection(host, port)
    sent = 0
    while time.perf_counter() < until:
        writer.write(parts[0] + f"{number}-{sent}".encode() + parts[1])
        sent += 1
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(lengths[0].split(b":")[1]))
        seen[head.split(b" ", 2)[1].decode()] += 1
    writer.close()


async def main() -> None:
    """Send, and tell."""
    host, port, seconds, connections = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    parts = request(json.loads(sys.stdin.read()), host)
    seen: Counter[str] = Counter()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(lane(host, port, number, parts, began + seconds, seen))
    print(json.dumps({"answers": seen, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    asyncio.run(main())
