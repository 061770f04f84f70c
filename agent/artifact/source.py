"""The seam between a delivery and where bytes come from: one `Source` a scheme."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Have:
    """The first `size` bytes, of `total`, of what had this strong `validator`, are here already."""

    size: int
    total: int
    validator: str


@dataclass(slots=True)
class Body:
    """An open stream of bytes.

    `size` in bytes, None when the other side does not tell; `validator` changes when the bytes do, "" when
    there is none; `read` gives whatever is there next, at most some hundred KiB, and b"" at the end. It
    raises Transient when the stream breaks off or falls silent. `start` is where it begins: 0, or the size
    of what was here already. `resumable` says whether the rest may be asked for when it breaks off, `mended`
    whether that was done: then the digest alone says whether the parts belong together.
    """

    size: int | None
    validator: str
    read: Callable[[], Awaitable[bytes]]
    start: int = 0
    resumable: bool = False
    mended: bool = False


class Source(Protocol):
    """Opens URLs of the schemes it names. One object for the agent's life."""

    @property
    def schemes(self) -> tuple[str, ...]:
        """What stands before "://" in the URLs it opens."""

    def open(
        self, url: str, *, unless: str = "", have: Have | None = None
    ) -> AbstractAsyncContextManager[Body | None]:
        """Open `url` for reading; leaving the context gives everything back, read to its end or not.

        None when `unless` is a validator given earlier and the bytes are still the same. With `have` the
        body may start behind what is here, if it is sure to be the rest of the same bytes. Raises a Failure
        of the kind that fits: Permanent (not there), OperatorNeeded (not allowed), Transient (not now).
        """

    async def aclose(self) -> None:
        """Close what was kept open between uses."""


def shown(url: str) -> str:
    """A URL for people and logs: without credentials, and without the query, which may be a signature."""
    parts = split(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else "(not a URL)"


def split(url: str) -> SplitResult:
    """The parts of a URL, all empty when it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def path_of(url: str) -> str:
    """The path of a URL, percent-decoded."""
    return unquote(split(url).path)
