"""The part of a forge that the demo needs: it tells of each push by a signed webhook, as Gitea does."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from agent.cli.demo.git_server import Pushed

DEADLINE = aiohttp.ClientTimeout(total=10.0)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook: when it was sent (seconds since the epoch) and how it was answered."""

    commit: str
    sent: float
    seconds: float
    status: int
    sync: str


class Hook:
    """Sends a delivery for each push.

    Args:
        session: sends.
        target: URL of the receiver.
        secret: signs.
        repository: clone URL of the repository.
        heard: told of each delivery.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        target: str,
        secret: bytes,
        repository: str,
        heard: Callable[[Delivery], None],
    ) -> None:
        self._session = session
        self._target = target
        self._secret = secret
        self._repository = repository
        self._heard = heard

    async def send(self, push: Pushed) -> None:
        """Tell of one changed ref (`GitServer.on_push`). Raises aiohttp.ClientError, TimeoutError."""
        body = json.dumps(
            {
                "ref": push.ref,
                "before": push.before,
                "after": push.after,
                "repository": {
                    "full_name": f"demo/{push.repository.removesuffix('.git')}",
                    "clone_url": self._repository,
                    "default_branch": "main",
                },
            }
        ).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Gitea-Event": "push",
            "X-Gitea-Delivery": str(uuid.uuid4()),
            "X-Gitea-Signature": hmac.new(self._secret, body, hashlib.sha256).hexdigest(),
        }
        sent = time.time()
        async with self._session.post(self._target, data=body, headers=headers, timeout=DEADLINE) as answer:
            found = await answer.json(content_type=None)
        sync = str(found.get("sync", ""))
        self._heard(Delivery(push.after, sent, time.time() - sent, answer.status, sync))
