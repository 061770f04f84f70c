"""How a probe is told from clients while it is sent to a child that does not serve yet.

Over IPv4 by its source, an address of 127.83.0.0/24: loopback, so it needs no configuration and no client
outside can have it. IPv6 has one loopback address only; there the same mark is sent as the traffic class
(RFC 8200, section 7), and counts for connections of this very host only.
"""

from __future__ import annotations

import ipaddress

_CLASS = 0xB0  # nobody uses it by default; the two lowest bits are ECN's


def traffic_class(source: str) -> int:
    """The IPv6 traffic class that stands for an IPv4 source address ending in .1 to .3."""
    return _CLASS | (int(ipaddress.IPv4Address(source)) & 3) << 2
