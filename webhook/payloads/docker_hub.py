"""Docker Hub: signs nothing and sends no header of its own; the secret stands in the hook's URL, ?token=.

A URL is seen by proxies and their logs: give Docker Hub a secret that nobody else has.
https://docs.docker.com/docker-hub/repos/manage/webhooks/
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from webhook.event import ArtifactEvent, Event
from webhook.payloads.forge import QUERY_TOKEN, Headers
from webhook.payloads.push import Text, decode
from webhook.signature import check_token


class _Pushed(msgspec.Struct):
    tag: Text | None = None


class _Repository(msgspec.Struct):
    repo_name: Text
    repo_url: Text | None = None


class _Notice(msgspec.Struct):
    repository: _Repository
    push_data: _Pushed | None = None


class DockerHub:
    """hub.docker.com."""

    name = "docker-hub"

    def sent(self, headers: Headers) -> bool:
        """Whoever brings a token in the URL and is nobody else."""
        return QUERY_TOKEN in headers

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
        """See `Forge`."""
        check_token(headers.get(QUERY_TOKEN), secrets, what="the token in the URL")
        return body

    def read(self, headers: Headers, document: bytes) -> Event:  # noqa: ARG002 - they say nothing
        """See `Forge`. There is no id: no two deliveries are known to be the same."""
        notice = decode(document, _Notice)
        names = tuple(n for n in (notice.repository.repo_name, notice.repository.repo_url) if n)
        return ArtifactEvent(self.name, "", names, (notice.push_data and notice.push_data.tag) or "")
