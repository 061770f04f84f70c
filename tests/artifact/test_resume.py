"""Downloads that break off: gone on with where that is safe, begun anew where it is not."""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent.artifact import partial
from agent.artifact.artifacts import Artifacts
from agent.artifact.limits import Limits
from agent.artifact.source import Body, Have
from agent.artifact.store import Store
from agent.domain.errors import Failure, Permanent, Transient
from tests.artifact.conftest import assert_no_traces
from tests.artifact.specs import spec
from tests.kit.artifact_server import ArtifactServer
from tests.kit.hostile import Asked, HostileServer, whole

DATA = os.urandom(3_000_000)
LARGE = os.urandom(17 << 20)  # enough to be kept on disk
TAG = '"one"'
Changed = tuple[str, dict[str, str], bytes] | bytes | None
Change = Callable[[Asked, dict[str, str], bytes], Changed]


class Breaking(HostileServer):
    """Serves `data` with ranges, and ends the first `breaks` answers after a third of what they hold.

    `change` is given each later request with the proper answer, and may answer otherwise.
    """

    def __init__(self, data: bytes, *, breaks: int = 1, tag: str = TAG, change: Change | None = None) -> None:
        super().__init__(self._answer)
        self.data = data
        self.tag = tag
        self._breaks = breaks
        self._change = change
        self._count = 0

    async def _answer(self, request: Asked, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        status, body, headers = "200 OK", self.data, {"ETag": self.tag} if self.tag else {}
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if match and request.headers.get("if-range") == self.tag:
            start = int(match[1])
            status, body = "206 Partial Content", self.data[start:]
            headers["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        if self._count > 1 and self._change is not None:
            changed = self._change(request, headers, body)
            if isinstance(changed, bytes):
                writer.write(changed)
                return
            if changed is not None:
                status, headers, body = changed
        answer = whole(body, "application/octet-stream", status=status, headers=headers)
        if self._count <= self._breaks:
            writer.write(answer[: len(answer) - len(body) * 2 // 3])
            await writer.drain()
            writer.close()
            return
        writer.write(answer)
        await writer.drain()

    @property
    def ranges(self) -> list[str]:
        """What was asked for."""
        return [request.headers.get("range", "") for request in self.asked]


async def fetch(artifacts: Artifacts, server: HostileServer, data: bytes) -> bytes:
    """Deliver what must be `data`; the one file of the release."""
    async with artifacts.deliver(spec(f"{server.url}/web", data, archive="none"), "web") as delivery:
        return ((await delivery.published()) / "bin/web").read_bytes()


async def fail(artifacts: Artifacts, server: HostileServer, data: bytes) -> Failure:
    with pytest.raises(Failure) as caught:
        await fetch(artifacts, server, data)
    assert_no_traces(artifacts.store)
    return caught.value


async def test_what_breaks_off_is_gone_on_with_where_it_broke(artifacts: Artifacts) -> None:
    async with Breaking(DATA, breaks=3) as server:
        assert await fetch(artifacts, server, DATA) == DATA
        starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in server.ranges[1:]]
        assert server.ranges[0] == ""
        assert len(starts) == 3
        assert 0 < starts[0] < starts[1] < starts[2] < len(DATA)
        assert all(request.headers["if-range"] == TAG for request in server.asked[1:])
        assert all(request.headers["accept-encoding"] == "identity" for request in server.asked)


async def test_an_error_in_between_is_waited_for(artifacts: Artifacts) -> None:
    def once(request: Asked, headers: dict[str, str], body: bytes) -> bytes | None:
        if len(server.asked) == 2:
            return whole(b"", "text/plain", status="503 Not Now", headers={"Retry-After": "0"})
        return None

    server = Breaking(DATA, change=once)
    async with server:
        assert await fetch(artifacts, server, DATA) == DATA
        assert len(server.asked) == 3


@pytest.mark.parametrize("tag", ["", 'W/"weak"', "unquoted", '"'])
async def test_without_a_strong_validator_nothing_is_put_together(artifacts: Artifacts, tag: str) -> None:
    async with Breaking(DATA, tag=tag) as server:
        failure = await fail(artifacts, server, DATA)
        assert isinstance(failure, Transient)
        assert failure.reason == "ArtifactTruncated"
        assert len(server.asked) == 1


LAST = len(DATA) - 1
# What the second answer is: its status, and the headers that differ ("" is left out).
LIES: dict[str, tuple[str, dict[str, str]]] = {
    "it ignores ranges": ("200 OK", {"Content-Range": ""}),
    "another tag": ("206 Part", {"ETag": '"two"'}),
    "no tag": ("206 Part", {"ETag": ""}),
    "a weak tag": ("206 Part", {"ETag": f"W/{TAG}"}),
    "no range": ("206 Part", {"Content-Range": ""}),
    "a range elsewhere": ("206 Part", {"Content-Range": f"bytes 5-{LAST}/{len(DATA)}"}),
    "a range that ends early": ("206 Part", {"Content-Range": f"bytes START-{LAST - 1}/{len(DATA)}"}),
    "another total": ("206 Part", {"Content-Range": f"bytes START-{LAST}/{len(DATA) + 1}"}),
    "an unknown total": ("206 Part", {"Content-Range": f"bytes START-{LAST}/*"}),
    "compressed": ("206 Part", {"Content-Encoding": "gzip"}),
    "several parts": ("206 Part", {"Content-Range": "", "Content-Type": "multipart/byteranges"}),
    "out of range": ("416 No", {"Content-Range": f"bytes */{len(DATA)}"}),
    "other bytes under the same tag": ("206 Part", {}),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_server_that_lies_about_the_rest_is_asked_for_all_of_it_anew(
    artifacts: Artifacts, lie: str
) -> None:
    status, changes = LIES[lie]

    def change(request: Asked, headers: dict[str, str], body: bytes) -> Changed:
        if len(server.asked) != 2:
            return None
        start = str(len(DATA) - len(body))
        told = {name: text.replace("START", start) for name, text in (headers | changes).items() if text}
        return status, told, bytes(len(body))

    server = Breaking(DATA, change=change)
    async with server:
        assert await fetch(artifacts, server, DATA) == DATA
        assert len(server.asked) == 3
        assert server.ranges[1].startswith("bytes=")
        assert server.ranges[2] == ""
        assert "if-range" not in server.asked[2].headers


async def test_what_is_replaced_in_the_middle_is_fetched_anew(artifacts: Artifacts) -> None:
    other = os.urandom(len(DATA))

    def replaced(request: Asked, headers: dict[str, str], body: bytes) -> Changed:
        return "200 OK", {"ETag": '"two"'}, other

    async with Breaking(DATA, change=replaced) as server:
        assert await fetch(artifacts, server, other) == other


async def test_the_wrong_file_is_refused_also_when_it_came_in_parts(artifacts: Artifacts) -> None:
    async with Breaking(DATA, breaks=1) as server:
        failure = await fail(artifacts, server, DATA + b"x")
        assert isinstance(failure, Permanent)
        assert failure.reason == "ChecksumMismatch"
        assert len(server.asked) == 3  # the rest, then once all of it


async def test_a_server_that_never_gets_further_is_given_up(store: Store) -> None:
    def nothing(request: Asked, headers: dict[str, str], body: bytes) -> Changed:
        return whole(b"", "text/plain", status="502 Bad Gateway")

    async with (
        Breaking(DATA, change=nothing) as server,
        Artifacts(store, limits=Limits(idle=1.0)) as artifacts,
    ):
        failure = await fail(artifacts, server, DATA)
        assert isinstance(failure, Transient)
        assert 2 < len(server.asked) < 10


async def interrupted(store: Store, url: str, data: bytes) -> None:
    """Begin a delivery, and end the agent when some of it is here."""
    begun = asyncio.Event()

    def tell(done: int, total: int) -> None:
        if done > 1_100_000:
            begun.set()

    async with Artifacts(store) as artifacts:
        async with artifacts.deliver(spec(url, data, archive="none"), "web", tell):
            async with asyncio.timeout(30):
                await begun.wait()
                while not any(kept(store)):
                    await asyncio.sleep(0.005)
    assert_no_traces(store)


def kept(store: Store) -> list[int]:
    """Sizes of the beginnings on disk."""
    return [path.stat().st_size for path in (store.root / "partial").glob("*/bytes")]


async def resumed(store: Store, url: str, data: bytes) -> Path:
    async with Artifacts(store) as artifacts:
        async with artifacts.deliver(spec(url, data, archive="none"), "web") as delivery:
            path = await delivery.published()
    assert (path / "bin/web").read_bytes() == data
    assert kept(store) == []
    return path


async def test_a_download_goes_on_after_a_restart(server: ArtifactServer, store: Store) -> None:
    url = server.put("web", LARGE)
    await interrupted(store, f"{server.url}/slow/web", LARGE)
    (size,) = kept(store)
    assert 0 < size < len(LARGE)
    await resumed(store, url, LARGE)
    assert [line.status for line in await server.requests(2)] == [200, 206]


async def test_what_was_replaced_before_the_restart_comes_whole(server: ArtifactServer, store: Store) -> None:
    server.put("web", LARGE)
    await interrupted(store, f"{server.url}/slow/web", LARGE)
    other = LARGE[::-1] + b"x"  # another length, else nginx has the same tag within a second
    # Whoever replaces the file changes the checksum, too; here the beginning is made to be asked for.
    beginning = next((store.root / "partial").iterdir())
    beginning.rename(store.partial(spec("x", other).checksum.hex))
    await resumed(store, server.put("web", other), other)
    assert [line.status for line in await server.requests(2)] == [200, 200]


@pytest.mark.parametrize(
    "damage", ["zeros", "shorter", "longer", "whole", "empty", "no validator", "nonsense"]
)
async def test_a_damaged_beginning_costs_time_but_never_bytes(
    server: ArtifactServer, store: Store, damage: str
) -> None:
    url = server.put("web", LARGE)
    await interrupted(store, f"{server.url}/slow/web", LARGE)
    path = next((store.root / "partial").glob("*/bytes"))
    data = path.read_bytes()
    if damage == "zeros":
        path.write_bytes(bytes(len(data)))
    elif damage == "shorter":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "longer":
        path.write_bytes(LARGE + b"x")
    elif damage == "whole":
        path.write_bytes(LARGE)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no validator":
        (path.parent / "validator").unlink()
    else:
        (path.parent / "validator").write_text("a b")
    await resumed(store, url, LARGE)


async def test_small_downloads_and_those_that_may_not_go_on_are_not_kept(
    server: ArtifactServer, store: Store
) -> None:
    server.put("web", DATA)
    begun = asyncio.Event()

    def tell(done: int, total: int) -> None:
        if done > 1_100_000:
            begun.set()

    async with Artifacts(store) as artifacts:
        wanted = spec(f"{server.url}/slow/web", DATA, archive="none")
        async with artifacts.deliver(wanted, "web", tell):
            async with asyncio.timeout(30):
                await begun.wait()
    assert kept(store) == []


class Swallowing:
    """A Work that does nothing."""

    def feed(self, pieces: Sequence[bytes]) -> None:
        pass

    def finish(self, pieces: Sequence[bytes]) -> None:
        pass

    def discard(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.mark.parametrize(("soon", "stays"), [(math.inf, False), (0.0, True)])
async def test_what_will_be_whole_soon_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soon: float, stays: bool
) -> None:
    monkeypatch.setattr(partial, "_SOON", soon)
    kept_here = partial.Partial(tmp_path / "partial")
    work = partial.Keeping(Swallowing(), kept_here)

    async def nothing() -> bytes:
        return b""

    await work.begin(Body(64 << 20, TAG, nothing, resumable=True))
    work.feed([LARGE[: 8 << 20]])
    assert kept_here.have() == Have(8 << 20, 64 << 20, TAG)
    work.feed([LARGE[8 << 20 :]])
    work.feed([b"more"])
    assert kept_here.have() == (Have(len(LARGE) + 4, 64 << 20, TAG) if stays else None)
    assert (tmp_path / "partial").exists() == stays
    work.discard()


async def test_old_beginnings_and_more_than_four_are_forgotten(store: Store) -> None:
    async with Artifacts(store):
        for number in range(6):
            path = store.partial(f"{number:064x}")
            path.mkdir()
            (path / "bytes").write_bytes(b"x")
            os.utime(path / "bytes", (1_000_000_000, 1_000_000_000) if number == 5 else None)
        (store.root / "partial/torn").mkdir()
        with store.using(f"{5:064x}"):
            await store.collect([])
            assert len(list((store.root / "partial").iterdir())) == 5
        await store.collect([])
        names = {path.name for path in (store.root / "partial").iterdir()}
        assert len(names) == 4
        assert f"{5:064x}" not in names
