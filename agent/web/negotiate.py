"""Content negotiation by the Accept header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

RANGES_MAX = 32  # of one header that are looked at

JSON, TEXT, HTML = "application/json", "text/plain", "text/html"


SUFFIXES = {".json": JSON, ".txt": TEXT, ".html": HTML}


def form(request: web.Request, offers: Sequence[str]) -> str:
    """The offer a request wants: by its path's ending, else as `choose` says."""
    for suffix, offer in SUFFIXES.items():
        if request.path.endswith(suffix) and offer in offers:
            return offer
    return choose(request.headers.get("Accept", ""), offers)


def choose(accept: str, offers: Sequence[str]) -> str:
    """The offer that `accept` prefers; the first one when it names none of them.

    A more exact range decides an offer's quality; of offers of equal quality those that were asked for
    by name come before those a wildcard covers, and then the earlier offer wins.
    """
    ranges = [_parsed(item) for item in accept.split(",")[:RANGES_MAX]]
    best, best_rank = offers[0], (0.0, 0, -len(offers))
    for position, offer in enumerate(offers):
        wildcard = offer.partition("/")[0] + "/*"
        exactness, quality = 0, 0.0
        for name, q in ranges:
            level = 3 if name == offer else 2 if name == wildcard else 1 if name == "*/*" else 0
            if level > exactness:
                exactness, quality = level, q
        rank = (quality, exactness, -position)
        if quality > 0 and rank > best_rank:
            best, best_rank = offer, rank
    return best


def _parsed(item: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, min(1.0, max(0.0, float(value)))
            except ValueError:
                return name, 0.0
    return name, 1.0
