"""Gitea: X-Gitea-Event, X-Gitea-Signature. Sends the headers of GitHub and Gogs as well.

https://docs.gitea.com/usage/webhooks
"""

from __future__ import annotations

from webhook.payloads.family import GogsFamily


class Gitea(GogsFamily):
    """Gitea."""

    name = "gitea"
    prefix = "X-Gitea"
