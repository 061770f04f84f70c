"""Deliveries as the forges send them: their headers, their signatures, JSON and form bodies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
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


def sign_standard(secret: bytes, identity: str, body: bytes, at: float | None = None) -> dict[str, str]:
    """The three headers of Standard Webhooks; `secret` begins with whsec_."""
    stamp = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix(b"whsec_"))
    digest = hmac.digest(key, f"{identity}.{stamp}.".encode() + body, "sha256")
    return {
        "webhook-id": identity,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _json(**headers: str) -> dict[str, str]:
    return {"Content-Type": "application/json", **{n.replace("_", "-"): v for n, v in headers.items()}}


def _gitlab(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    more = {
        "X-Gitlab-Instance": "https://gitlab.example.com",
        "X-Gitlab-Webhook-UUID": "13792a34-cac6-4fda-95a8-c58e00a3954e",
        "X-Gitlab-Event-UUID": "b5523222-bc6c-4fda-9b5e-000000000001",
        "Idempotency-Key": "f5e57390-ec14-41c2-b3ba-000000000001",
        "X-Gitlab-Event": event or "Push Hook",
    }
    return {**_json(**more), "X-Gitlab-Token": secret.decode()}


def _gitlab_signed(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    headers = _gitlab(body, b"", event)
    del headers["X-Gitlab-Token"]
    return {**headers, **sign_standard(secret, headers["Idempotency-Key"], body)}


def _cloud(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    return _json(
        User_Agent="Bitbucket-Webhooks/2.0",
        X_Event_Key=event or "repo:push",
        X_Hook_UUID="8b8f4c51-0000-4000-8000-000000000001",
        X_Request_UUID="dd4b5d5a-0000-4000-8000-000000000001",
        X_Attempt_Number="1",
        X_Hub_Signature="sha256=" + _hex(secret, body, "sha256"),
    )


def _server(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    return _json(
        X_Request_Id="5f2b9a1c-0000-4000-8000-000000000001",
        X_Event_Key=event or "repo:refs_changed",
        X_Hub_Signature="sha256=" + _hex(secret, body, "sha256"),
    )


def _azure(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    pair = base64.b64encode(b"emptybox:" + secret).decode()
    return _json(Authorization=f"Basic {pair}", User_Agent="VSServices/19.0")


def _generic(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    return _json(X_Signature_256="sha256=" + _hex(secret, body, "sha256"), X_Delivery="g-1")


def _generic_512(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    return _json(X_Signature=_hex(secret, body, "sha512"), X_Delivery="g-1")


def _harbor(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    return _json(Authorization=secret.decode())


def _oci(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    kind = "application/vnd.docker.distribution.events.v1+json"
    return {"Content-Type": kind, "Authorization": f"Bearer {secret.decode()}"}


def _hub(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    return _json()


def _github_json(body: bytes, secret: bytes, event: str) -> dict[str, str]:
    return {**_json(), **_github(event or "push", "gh-1", body, secret)}


Headers = Callable[[bytes, bytes, str], dict[str, str]]

OTHERS: dict[str, Headers] = {
    "gitlab": _gitlab,
    "gitlab-signed": _gitlab_signed,
    "bitbucket-cloud": _cloud,
    "bitbucket-server": _server,
    "azure-devops": _azure,
    "generic": _generic,
    "generic-512": _generic_512,
    "harbor": _harbor,
    "oci-registry": _oci,
    "docker-hub": _hub,
    "github": _github_json,
}
"""The headers of the senders that do not share GitHub's ways: from body, secret and event."""
