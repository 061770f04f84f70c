"""Commit statuses in the words of each forge. One class a forge, one table.

| forge | request | credentials in the token file |
|---|---|---|
| github | POST API/repos/OWNER/NAME/statuses/SHA | token: `Authorization: Bearer` |
| gitea, forgejo | the same, API is ORIGIN/api/v1 | token: `Authorization: token` |
| gitlab | POST API/projects/PATH/statuses/SHA, API is ORIGIN/api/v4 | token: `PRIVATE-TOKEN` |
| bitbucket-cloud | POST API/repositories/OWNER/NAME/commit/SHA/statuses/build | token, or user:app-password |
| bitbucket-server | POST ORIGIN/rest/build-status/1.0/commits/SHA | token, or user:password |
"""

from __future__ import annotations

import base64
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from agent.notify.letter import Call, CommitStatus, Letter, State

CHANNEL = "commit-status"
DESCRIPTION_MAX = 140  # characters: GitHub takes no more

Read = Callable[[], str]


class Forge(ABC):
    """The channel to one forge's API.

    Args:
        api: base URL without a slash at the end.
        repository: path of the repository on the forge: OWNER/NAME, for GitLab also deeper.
        link: where the status leads.
        token: reads the credentials; raises Failure.
    """

    name = CHANNEL
    words: ClassVar[Mapping[State, str]]

    def __init__(self, api: str, repository: str, link: str, token: Read) -> None:
        self.api = api
        self.repository = repository
        self.link = link
        self._token = token

    def call(self, letter: Letter) -> Call:
        """See `Channel`."""
        status = msgspec.json.decode(letter.body, type=CommitStatus)
        path, content = self.shape(status)
        headers = {"Accept": "application/json", **self.authorize(self._token())}
        return Call(f"{self.api}{path}", headers, content)

    def accepted(self, status: int, answer: str) -> bool:  # noqa: ARG002 - for GitLab
        """See `Channel`."""
        return 200 <= status < 300

    @abstractmethod
    def shape(self, status: CommitStatus) -> tuple[str, dict[str, Any]]:
        """Path below the API, and the JSON."""

    def authorize(self, token: str) -> dict[str, str]:
        """Headers that prove who asks."""
        if ":" in token:
            return {"Authorization": "Basic " + base64.b64encode(token.encode()).decode()}
        return {"Authorization": f"Bearer {token}"}


class GitHub(Forge):
    """https://docs.github.com/rest/commits/statuses#create-a-commit-status."""

    words: ClassVar = {
        State.PENDING: "pending",
        State.SUCCESS: "success",
        State.FAILURE: "failure",
        State.CANCELLED: "error",
    }

    def shape(self, status: CommitStatus) -> tuple[str, dict[str, Any]]:
        """See `Forge`."""
        content = {
            "state": self.words[status.state],
            "description": status.description,
            "context": status.context,
            **({"target_url": self.link} if self.link else {}),
        }
        return f"/repos/{quote(self.repository)}/statuses/{status.commit}", content

    def authorize(self, token: str) -> dict[str, str]:
        """See `Forge`."""
        return {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": "2022-11-28",
        }


class Gitea(GitHub):
    """Gitea and Forgejo: GitHub's shape. https://docs.gitea.com/api/ (repoCreateStatus)."""

    def authorize(self, token: str) -> dict[str, str]:
        """See `Forge`."""
        return {"Authorization": f"token {token}"}


class GitLab(Forge):
    """https://docs.gitlab.com/api/commits/#set-commit-pipeline-status."""

    words: ClassVar = {
        State.PENDING: "running",
        State.SUCCESS: "success",
        State.FAILURE: "failed",
        State.CANCELLED: "canceled",
    }

    def shape(self, status: CommitStatus) -> tuple[str, dict[str, Any]]:
        """See `Forge`."""
        content = {
            "state": self.words[status.state],
            "name": status.context,
            "description": status.description,
            **({"target_url": self.link} if self.link else {}),
        }
        return f"/projects/{quote(self.repository, safe='')}/statuses/{status.commit}", content

    def authorize(self, token: str) -> dict[str, str]:
        """See `Forge`."""
        return {"PRIVATE-TOKEN": token}

    def accepted(self, status: int, answer: str) -> bool:
        """See `Forge`. A status that is in this state already cannot be put into it again."""
        return super().accepted(status, answer) or (status == 400 and "Cannot transition status" in answer)


class Bitbucket(Forge):
    """What both Bitbuckets share: a key of at most 40 characters, and a link that must be there."""

    words: ClassVar = {
        State.PENDING: "INPROGRESS",
        State.SUCCESS: "SUCCESSFUL",
        State.FAILURE: "FAILED",
        State.CANCELLED: "FAILED",
    }

    def content(self, status: CommitStatus) -> dict[str, Any]:
        """The JSON of both."""
        key = status.context
        if len(key) > 40:
            key = f"{key[:23]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        return {
            "key": key,
            "name": status.context,
            "state": self.words[status.state],
            "description": status.description,
            "url": self.link,
        }


class BitbucketCloud(Bitbucket):
    """https://developer.atlassian.com/cloud/bitbucket/rest/api-group-commit-statuses/."""

    words: ClassVar = {**Bitbucket.words, State.CANCELLED: "STOPPED"}

    def shape(self, status: CommitStatus) -> tuple[str, dict[str, Any]]:
        """See `Forge`."""
        path = f"/repositories/{quote(self.repository)}/commit/{status.commit}/statuses/build"
        return path, self.content(status)


class BitbucketServer(Bitbucket):
    """https://developer.atlassian.com/server/bitbucket/how-tos/updating-build-status-for-commits/."""

    def shape(self, status: CommitStatus) -> tuple[str, dict[str, Any]]:
        """See `Forge`."""
        return f"/rest/build-status/1.0/commits/{status.commit}", self.content(status)


FORGES: Mapping[str, tuple[type[Forge], str]] = {
    "github": (GitHub, "/api/v3"),  # of an Enterprise Server
    "gitea": (Gitea, "/api/v1"),
    "forgejo": (Gitea, "/api/v1"),
    "gitlab": (GitLab, "/api/v4"),
    "bitbucket-cloud": (BitbucketCloud, "/2.0"),
    "bitbucket-server": (BitbucketServer, ""),
}
"""The forges by name, and where the API is below the origin of the repository."""

CLOUDS: Mapping[str, tuple[str, str]] = {
    "github.com": ("github", "https://api.github.com"),
    "gitlab.com": ("gitlab", "https://gitlab.com/api/v4"),
    "bitbucket.org": ("bitbucket-cloud", "https://api.bitbucket.org/2.0"),
    "codeberg.org": ("forgejo", "https://codeberg.org/api/v1"),
}
"""Host of the repository: its forge, its API."""
