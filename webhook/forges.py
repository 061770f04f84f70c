"""All forges, in the order in which they are asked whether a delivery is theirs."""

from __future__ import annotations

from webhook.payloads.forge import Forge, Headers
from webhook.payloads.forgejo import Forgejo
from webhook.payloads.gitea import Gitea
from webhook.payloads.github import GitHub
from webhook.payloads.gogs import Gogs

# Descendants first: Forgejo also sends Gitea's headers, both send those of Gogs, all send GitHub's.
FORGES: tuple[Forge, ...] = (Forgejo(), Gitea(), Gogs(), GitHub())


def tell_apart(headers: Headers) -> Forge | None:
    """The forge that sent a request with these headers, if it is one we know."""
    return next((forge for forge in FORGES if forge.sent(headers)), None)
