"""Secrets of this host, as the agent's own settings allow a state to name them. Blocking; called in threads.

| a state says | what is read | what the settings name |
|---|---|---|
| file: NAME | a file below a secret root | `--secret-root` (default /run/secrets) |
| env: NAME | a variable of the agent's environment | `--secret-env` |
| age: PATH | a file of the state repository, decrypted by age | `--age-identity` |
| exec: NAME | the output of a program of the operator's | `--secret-exec NAME=PROGRAM` |

A container's runtime puts everybody's secrets into /run/secrets: those of the agent itself (its Git
credentials) and, in directories, those of the platform, such as the token of a pod's service account. So of
/run/secrets only the files directly in it are given out, and of no root what the agent's settings name.

Every value is registered with the masker as it is read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from agent.config import Settings
from agent.domain.errors import FailureInfo, FailureKind
from agent.kit.mask import secrets as masker
from agent.source.secret_program import SIZE_MAX, ProgramFailed, ask
from agent.source.tree import NotThere, Tree, TreeFault

__all__ = ["SIZE_MAX", "SecretFault", "SecretReader", "Source", "secret_reader"]

DEADLINE = 10.0  # seconds that a program may take
DEADLINE_ALL = 45.0  # and all of them for one look
PLATFORM = Path("/run/secrets")
Source = tuple[str, str, bytes]  # file, env, age or exec; the name; the bytes of age's file


class SecretFault(Exception):
    """A secret that cannot be had; the text says why, and never quotes it."""

    def __init__(self, text: str, reason: str = "SecretUnusable") -> None:
        super().__init__(text)
        self.reason = reason

    def info(self, message: str, where: str) -> FailureInfo:
        """As a failure: what a program did not say it may say later, the rest needs the operator."""
        later = self.reason == "SecretProgramFailed"
        kind = FailureKind.TRANSIENT if later else FailureKind.OPERATOR
        return FailureInfo(kind, self.reason, message, where=where)


class SecretReader:
    """Reads secrets for the states of one host. What was read once is not read again, so that all apps agree.

    Args:
        salt: known to this host alone; goes into the digests of what holds secrets, so that nobody can try
            values out against the digests shown in /status.
        roots: directories that files may come from.
        names: variables of `environ` that may be read.
        environ: the agent's environment.
        identity: file of age identities, or of an SSH private key; None for none.
        programs: programs by name, each run without arguments.
        own: files and directories of the agent, which no state gets.
    """

    def __init__(
        self,
        salt: str = "",
        *,
        roots: Sequence[Path] = (),
        names: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        identity: Path | None = None,
        programs: Mapping[str, Path] | None = None,
        own: Sequence[Path] = (),
    ) -> None:
        self.salt = salt
        self._roots = roots
        self._names = names
        self._environ = environ or {}
        self._identity = identity
        self._programs = programs or {}
        self._own = own
        self._left = DEADLINE_ALL
        self._read: dict[Source, str | SecretFault] = {}

    def anew(self) -> SecretReader:
        """One that remembers nothing yet, for another look."""
        return SecretReader(
            self.salt, roots=self._roots, names=self._names, environ=self._environ,
            identity=self._identity, programs=self._programs, own=self._own,
        )  # fmt: skip

    def read(self, kind: str, name: str, data: bytes = b"") -> str:
        """The secret. Raises SecretFault."""
        source = kind, name, data
        if source not in self._read:
            try:
                self._read[source] = self._ask(source)
            except SecretFault as fault:
                self._read[source] = fault
        found = self._read[source]
        if isinstance(found, SecretFault):
            raise found
        return found

    @property
    def watched(self) -> bool:
        """Whether there is anything that `changed` could find."""
        return bool(self._read)

    def changed(self, *, programs: bool = True) -> list[str]:
        """Those that are others now than they were read, or are there at last, in words.

        One that cannot be had now counts as unchanged: it may just be written. `programs` says whether
        they are asked, too.
        """
        self._left = DEADLINE_ALL
        found = []
        for source, before in list(self._read.items()):
            kind, name, _ = source
            if (kind in ("env", "age") and isinstance(before, str)) or (kind == "exec" and not programs):
                continue
            try:
                now = self._ask(source)
            except SecretFault:
                continue
            if now != before:
                found.append(f"{kind} {name}")
        return found

    def _ask(self, source: Source) -> str:
        kind, name, data = source
        if kind == "age":
            return self.age(data)
        return {"file": self.file, "env": self.env, "exec": self.exec}[kind](name)

    def file(self, name: str) -> str:
        """The text of a file below the first root that has it. Raises SecretFault."""
        for root in self._roots:
            if root == PLATFORM and "/" in name:
                text = f"only files directly in {root} are given out (name its directory in --secret-root)"
                raise SecretFault(text, "SecretNotAllowed")
            if self._is_own(Path(os.path.realpath(root / name))):
                raise SecretFault(f"{name} belongs to the agent itself", "SecretNotAllowed")
            try:
                return self._text(Tree(root).read(name, SIZE_MAX))
            except NotThere:
                continue
            except TreeFault as fault:
                raise SecretFault(f"{name} below {root} {fault}".replace("the repository", "it")) from None
        places = ", ".join(map(str, self._roots)) or "any --secret-root"
        raise SecretFault(f"{name} is not there below {places}", "SecretMissing")

    def _is_own(self, real: Path) -> bool:
        """Whether it is, or lies in, what is the agent's; by hard links, too."""
        above = (real, *real.parents)
        return any(_same(place, own) for own in self._own for place in (above if own.is_dir() else above[:1]))

    def env(self, name: str) -> str:
        """A variable of the agent's. Raises SecretFault."""
        if name not in self._names:
            text = f"the agent's settings do not give {name} away (--secret-env)"
            raise SecretFault(text, "SecretNotAllowed")
        if name not in self._environ:
            raise SecretFault(f"{name} is not set in the agent's environment", "SecretMissing")
        return self._text(self._environ[name].encode(errors="surrogateescape"))

    def age(self, data: bytes) -> str:
        """What age encrypted, armored or not. Raises SecretFault."""
        if self._identity is None:
            raise SecretFault("the agent has no key for age (--age-identity)", "SecretNotAllowed")
        try:
            import pyrage
        except ImportError:
            raise SecretFault("age needs the extra: pip install emptybox[age]") from None
        try:
            with self._identity.open("rb") as file:
                key = file.read(SIZE_MAX)
            if b"PRIVATE KEY-----" in key:
                keys = [pyrage.ssh.Identity.from_buffer(key)]
            else:
                lines = [line.strip() for line in key.decode().splitlines()]
                keys = [pyrage.x25519.Identity.from_str(line) for line in lines if line.startswith("AGE-")]
        except (OSError, ValueError, pyrage.IdentityError):
            raise SecretFault("the file of --age-identity cannot be read") from None
        try:
            return self._text(pyrage.decrypt(data, keys))
        except pyrage.DecryptError as error:
            raise SecretFault(f"cannot be decrypted: {str(error)[:200]}") from None

    def exec(self, name: str) -> str:
        """What a program of the operator's prints. Raises SecretFault."""
        program = self._programs.get(name)
        if program is None:
            text = f"the agent's settings name no program {name} (--secret-exec)"
            raise SecretFault(text, "SecretNotAllowed")
        if self._left <= 0:
            raise SecretFault("all programs together take too long", "SecretProgramFailed")
        began = time.monotonic()
        try:
            return self._text(ask(program, min(DEADLINE, self._left)))
        except ProgramFailed as failed:
            raise SecretFault(f"{program} {failed}", "SecretProgramFailed") from None
        finally:
            self._left -= time.monotonic() - began

    def _text(self, data: bytes) -> str:
        if len(data) > SIZE_MAX:
            raise SecretFault(f"is larger than {SIZE_MAX >> 10} KiB")
        try:
            text = data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise SecretFault("is not UTF-8 text") from None
        if not text or "\0" in text:
            raise SecretFault("is empty" if not text else "holds a zero byte")
        masker.add(text)
        return text


def secret_reader(settings: Settings, salt: str) -> SecretReader:
    """The reader as the settings want it."""
    return SecretReader(
        salt, roots=settings.secret_roots, names=settings.secret_env, environ=os.environ,
        identity=settings.age_identity, programs=dict(settings.secret_programs),
        own=tuple(_own_files(settings)),
    )  # fmt: skip


def _own_files(settings: Settings) -> Iterator[Path]:
    """The data directory, and all that the settings name but the roots that are there for apps."""
    for item in fields(settings):
        if item.name not in ("secret_roots", "file_roots", "place_roots", "templates"):
            value = getattr(settings, item.name)
            several = value if isinstance(value, tuple) else (value,)
            yield from (path for path in several if isinstance(path, Path))


def _same(real: Path, own: Path) -> bool:
    try:
        return os.path.samestat(os.stat(real), os.stat(own))
    except OSError:
        return False
