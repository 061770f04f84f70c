"""Forgejo: X-Forgejo-Event, X-Forgejo-Signature. Sends the headers of Gitea, GitHub and Gogs as well.

https://forgejo.org/docs/latest/user/webhooks/
"""

from __future__ import annotations

from webhook.payloads.family import GogsFamily


class Forgejo(GogsFamily):
    """Forgejo, Codeberg among them."""

    name = "forgejo"
    prefix = "X-Forgejo"
