"""Deliveries as the forges send them: their headers, their signatures, JSON and form bodies."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

FIXTURES = Path(__file__).parent.parent / "webhook" / "fixtures"
FORGES = ("github", "gitea", "forgejo", "gogs")


@dataclass
class Delivery:
    """One request; change it to make it a forged one."""

    headers: dict[str, str]
    body: bytes


def fixture(name: str) -> bytes:
    return (FIXTURES / f"{name}.json").read_bytes()


def push_document(
    *, ref: str = "refs/heads/main", after: str = "a" * 40, repository: str = "acme/state", padding: int = 0
) -> bytes:
    """A push in the shape that all four share, `padding` bytes longer than needed."""
    document = {
        "ref": ref,
        "before": "b" * 40,
        "after": after,
        "commits": [{"id": after, "message": "x" * padding}],
        "repository": {
            "full_name": repository,
            "clone_url": f"https://git.example.com/{repository}.git",
            "default_branch": "main",
        },
    }
    return json.dumps(document).encode()


def deliver(
    forge: str,
    document: bytes,
    secret: bytes | None,
    *,
    event: str = "push",
    delivery: str | None = None,
    form: bool = False,
) -> Delivery:
    """A delivery of `document`; without a secret the forge signs as it does when none is set."""
    body = urlencode({"payload": document}).encode() if form else document
    content_type = "application/x-www-form-urlencoded" if form else "application/json"
    identity = str(uuid.uuid4()) if delivery is None else delivery
    headers = SENDERS[forge](event, identity, body if forge == "github" else document, secret)
    return Delivery({"Content-Type": content_type, **headers}, body)


def _hex(secret: bytes | None, signed: bytes, algorithm: str) -> str:
    return hmac.new(secret, signed, algorithm).hexdigest() if secret else ""


def _github(event: str, delivery: str, signed: bytes, secret: bytes | None) -> dict[str, str]:
    headers = {
        "User-Agent": "GitHub-Hookshot/ae8b1c4",
        "X-GitHub-Hook-ID": "109948940",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-GitHub-Hook-Installation-Target-Type": "repository",
    }
    if secret:
        headers["X-Hub-Signature"] = "sha1=" + _hex(secret, signed, "sha1")
        headers["X-Hub-Signature-256"] = "sha256=" + _hex(secret, signed, "sha256")
    return headers


def _gogs(event: str, delivery: str, signed: bytes, secret: bytes | None) -> dict[str, str]:
    return {
        "X-GitHub-Delivery": delivery,
        "X-GitHub-Event": event,
        "X-Gogs-Delivery": delivery,
        "X-Gogs-Event": event,
        "X-Gogs-Signature": _hex(secret, signed, "sha256"),
    }


def _gitea(event: str, delivery: str, signed: bytes, secret: bytes | None) -> dict[str, str]:
    return {
        **_gogs(event, delivery, signed, secret),
        "X-Gogs-Event-Type": event,
        "X-GitHub-Event-Type": event,
        "X-Gitea-Delivery": delivery,
        "X-Gitea-Event": event,
        "X-Gitea-Event-Type": event,
        "X-Gitea-Signature": _hex(secret, signed, "sha256"),
        "X-Hub-Signature": "sha1=" + _hex(secret, signed, "sha1"),
        "X-Hub-Signature-256": "sha256=" + _hex(secret, signed, "sha256"),
    }


def _forgejo(event: str, delivery: str, signed: bytes, secret: bytes | None) -> dict[str, str]:
    return {
        **_gitea(event, delivery, signed, secret),
        "X-Forgejo-Delivery": delivery,
        "X-Forgejo-Event": event,
        "X-Forgejo-Event-Type": event,
        "X-Forgejo-Signature": _hex(secret, signed, "sha256"),
    }


SENDERS: dict[str, Callable[[str, str, bytes, bytes | None], dict[str, str]]] = {
    "github": _github,
    "gitea": _gitea,
    "forgejo": _forgejo,
    "gogs": _gogs,
}


def commit(number: int) -> str:
    """A commit id, another one for each number."""
    return hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()
