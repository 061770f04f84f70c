"""Which pushes concern us: the repository and the ref that the agent follows.

A push that gets here is signed with our secret, so a wrong yes costs one request to Git, and a wrong no
a whole polling interval. So we compare generously: inside clusters a forge is often reached by another host
name than the one in its payloads, hence by the last two segments of the path (owner and name), in any
case, without `.git`. A repository given by file:// or on a loopback address has no owner that a forge would
know, nor has one whose path has a single segment: there the last segment alone decides.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote, urlsplit

from webhook.event import PushEvent

_SCP = re.compile(r"(?:[^/@:]+@)?(?:\[[^]/]*\]|[^/:\[\]]+):(?P<path>.*)", re.DOTALL)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Following:
    """What is followed.

    Args:
        repo: URL of the state repository.
        ref: "HEAD", a branch, a tag, a full ref name, or a full commit id.
    """

    def __init__(self, repo: str, ref: str) -> None:
        path = path_of(repo)
        self._path = path[-1:] if _is_local(repo) else path[-2:]
        self._ref = ref

    def objection(self, push: PushEvent) -> str:
        """Why a push does not concern us, as one sentence; "" when it does."""
        if not any(self._is_repository(name) for name in push.repositories):
            name = "/".join(path_of(push.repositories[0])[-2:]) if push.repositories else "without a name"
            return f"the repository {name} is not followed"
        if _COMMIT.fullmatch(self._ref):
            return f"the commit {self._ref[:12]} is followed, which no push moves"
        if not self._is_ref(push):
            return f"{push.ref} is not followed; {self._ref} is"
        return f"{push.ref} was deleted" if push.deleted else ""

    def _is_repository(self, name: str) -> bool:
        return bool(self._path) and path_of(name)[-len(self._path) :] == self._path

    def _is_ref(self, push: PushEvent) -> bool:
        if self._ref == "HEAD":
            if not push.default_branch:  # not told: any branch may be it
                return push.ref.startswith("refs/heads/")
            return push.ref == f"refs/heads/{push.default_branch}"
        return push.ref in (self._ref, f"refs/heads/{self._ref}", f"refs/tags/{self._ref}")


def path_of(name: str) -> tuple[str, ...]:
    """The segments of a repository's path, lower case, without `.git`; () for what cannot be read.

    `name` is a URL (https, ssh, git, file), git's own host:path, a plain path, or owner/name.
    """
    if "://" in name:
        try:
            path = unquote(urlsplit(name).path)
        except ValueError:
            return ()
    elif match := _SCP.fullmatch(name):
        path = match["path"]
    else:
        path = name
    segments = [segment for segment in path.casefold().split("/") if segment not in ("", ".")]
    if segments:
        segments[-1] = segments[-1].removesuffix(".git") or segments[-1]
    return tuple(segments)


def _is_local(repo: str) -> bool:
    try:
        parts = urlsplit(repo)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "file" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
