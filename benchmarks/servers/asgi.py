"""An ASGI application: its version to everyone."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

BODY = f"{os.environ['EMPTYBOX_VERSION']}\n".encode()


async def app(
    scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """One request."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})
