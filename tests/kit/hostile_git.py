"""Git servers that behave badly after a proper beginning, on top of `hostile.HostileServer`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.domain.errors import Failure
from agent.source.git.http import ADVERTISEMENT_TYPE
from agent.source.git.pktline import Mark, encode
from agent.source.git.remote import GitRemote
from tests.kit.hostile import Answer, Asked, whole

ADVERTISEMENT = whole(
    encode([b"version 2\n", b"ls-refs\n", b"fetch=shallow\n", b"object-format=sha1\n", Mark.FLUSH]),
    ADVERTISEMENT_TYPE,
)
A = "a" * 40
REFS = encode([f"{A} refs/heads/main\n".encode(), Mark.FLUSH])

Behave = Callable[[asyncio.StreamWriter], Awaitable[None]]


def git_server(post: Behave) -> Answer:
    """Advertises like a Git server, and answers commands by `post`."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.method == "GET":
            writer.write(ADVERTISEMENT)
        else:
            await post(writer)

    return answer


def sends(data: bytes) -> Behave:
    """These bytes and no more."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return send


def always(data: bytes) -> Answer:
    """The same to every request."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


async def failure(remote: GitRemote, ref: str = "main") -> Failure:
    """The failure that looking up a ref ends in."""
    with pytest.raises(Failure) as caught:
        await remote.ls_ref(ref)
    return caught.value
