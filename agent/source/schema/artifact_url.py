"""Where an artifact's bytes are to be had: its URL, its mirrors, and the headers that open the way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from agent.domain import git_reference
from agent.source.problems import nearest, shown
from agent.source.schema.place import Place
from agent.source.schema.secrets import Revealed

URL_MAX = 4096
MIRRORS_MAX = 8
HEADERS_MAX = 16
HEADER_MAX = 8192  # characters of a value
SCHEMES = ("http", "https", "file", "oci", "s3", "gs", "az", "sftp", *git_reference.SCHEMES)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")  # a token of RFC 9110
_OURS = re.compile(
    r"host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|range|user-agent|cookie2?"
    r"|(content|accept|if|proxy)-.*",
    re.IGNORECASE,
)


def checked(url: str, place: Place) -> str:
    """A URL of a scheme we have; "" after a mistake was noted. Never shown: it may hold a secret."""
    if not place.sound:
        return ""
    scheme, separator, _ = url.partition("://")
    hint = nearest(scheme, SCHEMES) or f", known are {', '.join(SCHEMES)}"
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        place.problem("not a URL")
        return ""
    if not separator or not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]*", scheme):
        place.problem("not a URL; write https://… or file:///…")
    elif scheme.lower() not in SCHEMES:
        place.problem(f"unknown scheme {shown(scheme)}{hint}")
    elif len(url) > URL_MAX:
        place.problem(f"longer than {URL_MAX} characters")
    elif any(c.isspace() or not c.isprintable() for c in url):
        place.problem("a URL holds no spaces or control characters")
    elif scheme.lower() == "file" and (host or not parts.path.startswith("/")):
        place.problem("a file URL names an absolute path: file:///srv/app.tar.gz")
    elif scheme.lower() == "sftp" and (not parts.username or parts.password):
        place.problem("write sftp://USER@HOST/PATH, without a password; the agent has a key (--sftp-key)")
    elif scheme.lower() in git_reference.SCHEMES and (wrong := _mistake(url)):
        place.problem(wrong)
    elif scheme.lower() != "file" and not host:
        place.problem("the URL names no host")
    else:
        return url
    return ""


def _mistake(url: str) -> str:
    """What is wrong with the address of a path in Git."""
    try:
        git_reference.parse(url)
    except ValueError as error:
        return str(error)
    return ""


def mirrors(raw: Sequence[str] | None, url: str, place: Place) -> tuple[str, ...]:
    """URLs of the same bytes."""
    if raw is None:
        return ()
    if len(raw) > MIRRORS_MAX:
        place.problem(f"more than {MIRRORS_MAX} mirrors")
        return ()
    found = []
    for index, text in enumerate(raw):
        at = place / index
        mirror = checked(at.render(text), at)
        if "oci" in (urlsplit(mirror).scheme, urlsplit(url).scheme):
            at.problem("what is in a registry has no mirrors, and is none")
        found.append(mirror)
    return tuple(found)


def headers(raw: Mapping[str, str] | None, url: str, place: Place, secrets: Revealed) -> dict[str, str]:
    """Headers by name, their values rendered with the app's secrets."""
    if raw is None:
        return {}
    if len(raw) > HEADERS_MAX:
        place.problem(f"more than {HEADERS_MAX} headers")
    elif url and urlsplit(url).scheme.lower() not in ("http", "https"):
        place.problem("only http:// and https:// have headers", key=True)
    found = {}
    for name, text in raw.items():
        at = place / name
        if not _HEADER.fullmatch(name):
            at.problem("not the name of a header", key=True)
        elif _OURS.fullmatch(name):
            at.problem("is set by the agent", key=True)
        else:
            found[name] = at.seeing(secrets=secrets).render(text)
            if len(found[name]) > HEADER_MAX or not all(32 <= ord(c) < 127 for c in found[name]):
                at.problem(f"a header's value is up to {HEADER_MAX} printable ASCII characters")
    return found
