"""Name servers that do not answer keep nobody but who asks them."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from agent.kit.loop import Loop

DEADLINE = 30.0


def test_work_in_threads_goes_on_while_names_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, asked = threading.Event(), threading.Semaphore(0)

    def no_answer(*_: object) -> list[object]:
        asked.release()
        answered.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", no_answer)

    async def live() -> None:
        loop = asyncio.get_running_loop()
        lookups = [asyncio.ensure_future(loop.getaddrinfo(f"host-{n}.test", 443)) for n in range(40)]
        try:
            async with asyncio.timeout(DEADLINE):
                assert await asyncio.to_thread(asked.acquire)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await loop.getaddrinfo("one-more.test", 443)
        finally:
            answered.set()
        async with asyncio.timeout(DEADLINE):
            told = await asyncio.gather(*lookups, return_exceptions=True)
        assert {type(each) for each in told} == {socket.gaierror}

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(live())


def test_names_are_looked_up() -> None:
    async def live() -> list[object]:
        return list(await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))

    with asyncio.Runner(loop_factory=Loop) as runner:
        found = runner.run(live())
    assert found[0][4] == ("127.0.0.1", 80)  # type: ignore[index]
