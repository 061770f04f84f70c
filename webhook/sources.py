"""Who a request comes from, through proxies that are trusted, and how many refusals one source is given.

Only refused deliveries count: what is proved genuine is bounded by being merged, and a forge must not be
turned away for a flood of pushes. A source that was refused too often is refused unread for a while; who
shares its address meanwhile is found by polling.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED_MAX = 32  # addresses looked at in X-Forwarded-For
SOURCES_MAX = 4096  # remembered; the one heard of longest ago is forgotten first
BURST = 100.0  # refusals that a source may get at once
REFILL = 1.0  # and this many a second after that


def source_of(peer: str, forwarded: str, proxies: Sequence[Network]) -> str:
    """The address a request comes from: the last one that is no trusted proxy's.

    Args:
        peer: address of the connection's other end; "" on a Unix socket.
        forwarded: X-Forwarded-For, all of them joined by commas. Believed from the right, as far as trusted
            proxies wrote it.
        proxies: networks of trusted proxies.

    Returns:
        An IPv4 address, the /64 of an IPv6 one (a client has all of it), or the peer as it is.
    """
    address = _parsed(peer)
    hops = forwarded.split(",")[-FORWARDED_MAX:] if forwarded and proxies else []
    while address is not None and hops and any(address in network for network in proxies):
        before = _parsed(hops.pop())
        if before is None:
            break
        address = before
    if address is None:
        return peer
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    text = text.strip().partition("%")[0]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


class Refusals:
    """A bucket of refusals for each source, filled again as time goes by.

    Args:
        burst: refusals a source may get at once.
        refill: refusals a second that it gets back.
        clock: seconds, never going back.
    """

    def __init__(
        self, burst: float = BURST, refill: float = REFILL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._refill = refill
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when it was

    def __len__(self) -> int:
        return len(self._left)

    def wait(self, source: str) -> float:
        """Seconds until this source is heard again; 0.0 when it is heard now."""
        left = self._now(source)
        return 0.0 if left >= 1.0 or self._refill <= 0 else (1.0 - left) / self._refill

    def refused(self, source: str) -> None:
        """One more refusal for this source."""
        self._left[source] = (max(0.0, self._now(source) - 1.0), self._clock())
        self._left.move_to_end(source)
        while len(self._left) > SOURCES_MAX:
            self._left.popitem(last=False)

    def _now(self, source: str) -> float:
        left, at = self._left.get(source, (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - at) * self._refill)
