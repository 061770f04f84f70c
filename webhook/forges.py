"""All forges and registries, in the order in which they are asked whether a delivery is theirs."""

from __future__ import annotations

from collections.abc import Sequence

from webhook.payloads.azure_devops import AzureDevOps
from webhook.payloads.bitbucket_cloud import BitbucketCloud
from webhook.payloads.bitbucket_server import BitbucketServer
from webhook.payloads.docker_hub import DockerHub
from webhook.payloads.forge import Forge, Headers
from webhook.payloads.forgejo import Forgejo
from webhook.payloads.generic import Generic
from webhook.payloads.gitea import Gitea
from webhook.payloads.github import GitHub
from webhook.payloads.gitlab import GitLab
from webhook.payloads.gogs import Gogs
from webhook.payloads.harbor import Harbor
from webhook.payloads.oci_registry import OciRegistry


def forges(signature_header: str = "") -> tuple[Forge, ...]:
    """All of them. `signature_header` is where a sender of one's own may put its signature, too.

    Descendants first: Forgejo also sends Gitea's headers, both send those of Gogs, all send GitHub's.
    Last those that send no header of their own: who authenticates and is nobody else is taken for them.
    """
    return (
        Forgejo(),
        Gitea(),
        Gogs(),
        GitHub(),
        GitLab(),
        BitbucketCloud(),
        BitbucketServer(),
        Generic(signature_header),
        OciRegistry(),
        AzureDevOps(),
        Harbor(),
        DockerHub(),
    )


FORGES = forges()


def tell_apart(headers: Headers, among: Sequence[Forge] = FORGES) -> Forge | None:
    """The forge that sent a request with these headers, if it is one of those we know."""
    return next((forge for forge in among if forge.sent(headers)), None)
