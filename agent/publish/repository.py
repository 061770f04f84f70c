"""A release written into a state repository and pushed, by the git program.

Git's own program, because whoever runs a CI job has set it up already: keys, helpers, proxies, who commits,
whether commits are signed. When somebody else pushes meanwhile, the edit is made again upon what they pushed.

    clone ─► edit ─► what comes first ─► commit ─► push ─► done
              │                            ▲        │ somebody was faster
              └────────────────────────────┤        ▼
                                         edit ◄── fetch
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.domain.errors import Failure
from agent.publish.state import Change, Release, write_release
from agent.publish.trouble import Trouble
from agent.source.git.address import Address, parse
from agent.source.git.credentials import basic, read_login

TRIES = 20
_DEADLINE = 300.0  # seconds for one git command
_PAUSE = 0.2  # seconds, at random up to twice as long with each try, at most _LONGEST
_LONGEST = 5.0
_OURS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")  # of a hook
# What git says, in English as it is told to, when the server is away and when it does not know us.
_PASSING = re.compile(
    r"Could not resolve|[Cc]onnect(ion)? (to|refused|reset)|[Tt]imed out|hung up|early EOF|returned error: 5"
)
_DENIED = re.compile(r"could not read (Username|Password)|Authentication failed|Permission denied|error: 403")
_NAME, _MAIL = "emptybox publish", "emptybox@localhost"


@dataclass(frozen=True, slots=True)
class Pushed:
    """The commit that says the release now; no changes: it was there already."""

    commit: str
    branch: str
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class StateRepository:
    """Where the state is. `branch` "" is the remote's HEAD, `path` as in `write_release`."""

    url: str
    branch: str = ""
    path: str = ""
    credentials: Path | None = field(default=None, repr=False)

    def push(self, release: Release, message: str, first: Callable[[], object] = lambda: None) -> Pushed:
        """Write the release into the state, commit with `message`, push. Blocks. Raises Trouble.

        `first` is called once it is sure that the state can say so, and before it does.
        """
        if shutil.which("git") is None:
            raise Trouble("the git program is missing", "install it; emptybox publish pushes with it")
        with tempfile.TemporaryDirectory(prefix="emptybox-publish-") as directory:
            return _Clone(self, Path(directory)).push(release, message, first)


class _Clone:
    """One shallow clone."""

    def __init__(self, remote: StateRepository, directory: Path) -> None:
        self._remote = remote
        self._address, self._url = _address(remote.url)
        self._tree = directory / "state"
        self._environment = _environment(self._address, remote.credentials)

    def push(self, release: Release, message: str, first: Callable[[], object]) -> Pushed:
        branch = ["--branch", self._remote.branch] if self._remote.branch else []
        self._git(
            "clone", "-q", "--depth=1", "--single-branch", "--no-tags", *branch, "--", self._url,
            str(self._tree), inside=False,
        )  # fmt: skip
        name = self._git("symbolic-ref", "--short", "HEAD")
        ref = f"refs/heads/{name}"
        for again in range(TRIES):
            if not self._try("rev-parse", "-q", "--verify", "HEAD"):
                raise Trouble(f"{self._address.shown}: the branch {name} has no commit")
            before = self._git("rev-parse", "HEAD")
            changes = write_release(self._tree, self._remote.path, release)
            if again == 0:
                first()
            if not changes:
                return Pushed(before, name, [])
            self._commit(changes, message)
            refused = self._push(ref)
            if not refused:
                return Pushed(self._git("rev-parse", "HEAD"), name, changes)
            now = self._git("ls-remote", "origin", ref).partition("\t")[0]
            if now == before and "lock" not in refused:
                raise Trouble(f"{self._address.shown}: the push was refused: {refused}")
            time.sleep(min(_PAUSE * 2**again, _LONGEST) * random.random())  # noqa: S311 - no secret
            self._git("fetch", "-q", "--depth=1", "--no-tags", "origin", ref)
            self._git("reset", "-q", "--hard", "FETCH_HEAD")
        raise Trouble(
            f"{self._address.shown}: somebody else was faster {TRIES} times", "try again", passing=True
        )

    def _commit(self, changes: Sequence[Change], message: str) -> None:
        self._git("add", "--", *{change.file for change in changes})
        identity = {}
        if not self._try("config", "user.email") and "GIT_AUTHOR_EMAIL" not in self._environment:
            identity = {
                f"GIT_{role}_{what}": value
                for role in ("AUTHOR", "COMMITTER")
                for what, value in (("NAME", _NAME), ("EMAIL", _MAIL))
            }
        self._git("commit", "-q", "-F", "-", said=message, more=identity)

    def _push(self, ref: str) -> str:
        """Why it was refused, "" when it was not."""
        done = self._run(["push", "--porcelain", "origin", f"HEAD:{ref}"])
        if done.returncode == 0:
            return ""
        rejected = [line.partition("\t")[2] for line in done.stdout.splitlines() if line.startswith("!")]
        return _short([*done.stderr.splitlines(), *rejected])

    def _try(self, *words: str) -> str:
        """What a command prints; "" when it fails."""
        done = self._run(words)
        return done.stdout.strip() if done.returncode == 0 else ""

    def _git(
        self, *words: str, inside: bool = True, said: str = "", more: dict[str, str] | None = None
    ) -> str:
        done = self._run(words, inside=inside, said=said, more=more)
        if done.returncode != 0:
            raise self._trouble(words[0], _short(done.stderr.splitlines()))
        return done.stdout.strip()

    def _trouble(self, word: str, why: str) -> Trouble:
        remedy = "name a login: --credentials-file, or as git is set up here" if _DENIED.search(why) else ""
        return Trouble(
            f"{self._address.shown}: git {word}: {why}", remedy, passing=bool(_PASSING.search(why))
        )

    def _run(
        self,
        words: Sequence[str],
        *,
        inside: bool = True,
        said: str = "",
        more: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["git", *words], cwd=self._tree if inside else None, input=said, capture_output=True,
                env={**self._environment, **(more or {})}, timeout=_DEADLINE, errors="replace", text=True,
                start_new_session=True,  # without a terminal nothing can ask for a password
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Trouble(
                f"{self._address.shown}: git {words[0]} took more than {_DEADLINE:g} s", passing=True
            ) from None


def _address(url: str) -> tuple[Address, str]:
    """The repository's address, and its URL as git shall have it. Raises Trouble."""
    if "://" not in url and Path(url).is_dir():
        url = Path(url).resolve().as_uri()
    try:
        address = parse(url)
    except Failure as failure:
        raise Trouble(failure.info.message, "say --state with the URL of a repository") from None
    if address.login is not None and address.login[1]:
        raise Trouble(
            f"{address.shown}: a password in a URL can be seen by everybody on this machine",
            "put it into a file: --credentials-file, or a credential helper of git",
        )
    return address, url


def _environment(address: Address, credentials: Path | None) -> dict[str, str]:
    """What git is told beside what it has been told by its own configuration. Raises Trouble."""
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    if credentials is None or address.scheme not in ("http", "https"):
        return environment
    try:
        login = read_login(credentials, address.shown)
    except Failure as failure:
        raise Trouble.of(failure) from None
    if login is None:
        return environment
    number = int(environment.get("GIT_CONFIG_COUNT", "0"))
    return environment | {
        "GIT_CONFIG_COUNT": str(number + 1),
        f"GIT_CONFIG_KEY_{number}": f"http.{address.shown}.extraHeader",
        f"GIT_CONFIG_VALUE_{number}": f"Authorization: {basic(*login)}",
    }


def _short(lines: Sequence[str]) -> str:
    """The last lines of what git said, on one."""
    return "; ".join(line.strip() for line in lines if line.strip())[-600:] or "it did not say why"
