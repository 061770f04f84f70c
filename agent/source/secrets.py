"""Secrets of this host, as the agent's own settings allow a state to name them. Blocking; called in threads.

| a state says | what is read | what the settings name |
|---|---|---|
| file: NAME | a file below a secret root | `--secret-root` (default /run/secrets) |
| env: NAME | a variable of the agent's environment | `--secret-env` |
| age: PATH | a file of the state repository, decrypted by age | `--age-identity` |
| exec: NAME | the output of a program of the operator's | `--secret-exec NAME=PROGRAM` |

Every value is registered with the masker as it is read. What was read is remembered by the place, size and
time of its file, so that `stale` can tell a rotation without reading anything.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.config import Settings
from agent.kit.mask import secrets as masker
from agent.source.tree import NotThere, Tree, TreeFault

SIZE_MAX = 64 << 10
DEADLINE = 10.0  # seconds that a program may take
Stamp = tuple[int, int, int] | None


class SecretFault(Exception):
    """A secret that cannot be had; the text says why, and never quotes it."""


class SecretReader:
    """Reads secrets for the states of one host.

    Args:
        salt: known to this host alone; goes into the digests of what holds secrets, so that nobody can try
            values out against the digests shown in /status.
        roots: directories that files may come from.
        names: variables of `environ` that may be read.
        environ: the agent's environment.
        identity: file of age identities, or None.
        programs: programs by name, each run without arguments.
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
    ) -> None:
        self.salt = salt
        self._roots = roots
        self._names = names
        self._environ = environ or {}
        self._identity = identity
        self._programs = programs or {}
        self._seen: dict[Path, Stamp] = {}

    def stale(self) -> bool:
        """Whether a file that was read (or looked for) is another one now."""
        return any(_stamp(path) != stamp for path, stamp in list(self._seen.items()))

    def file(self, name: str) -> str:
        """The text of a file below the first root that has it. Raises SecretFault."""
        for root in self._roots:
            self._look_at(root / name)
            try:
                return self._text(Tree(root).read(name, SIZE_MAX))
            except NotThere:
                continue
            except TreeFault as fault:
                raise SecretFault(f"{name} below {root} {fault}") from None
        places = ", ".join(map(str, self._roots)) or "any --secret-root"
        raise SecretFault(f"{name} is not there below {places}")

    def env(self, name: str) -> str:
        """A variable of the agent's. Raises SecretFault."""
        if name not in self._names:
            raise SecretFault(f"the agent's settings do not give {name} away (--secret-env)")
        if name not in self._environ:
            raise SecretFault(f"{name} is not set in the agent's environment")
        return self._text(self._environ[name].encode())

    def age(self, data: bytes) -> str:
        """What age encrypted, armored or not. Raises SecretFault."""
        if self._identity is None:
            raise SecretFault("the agent has no key for age (--age-identity)")
        try:
            import pyrage
        except ImportError:
            raise SecretFault("age needs the extra: pip install emptybox[age]") from None
        self._look_at(self._identity)
        try:
            lines = self._identity.read_text().splitlines()
            keys = [
                pyrage.x25519.Identity.from_str(line.strip()) for line in lines if line.startswith("AGE-")
            ]
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
            raise SecretFault(f"the agent's settings name no program {name} (--secret-exec)")
        try:
            ended = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE)
        except OSError as error:
            raise SecretFault(f"{program} cannot be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise SecretFault(f"{program} did not end within {DEADLINE:g} s") from None
        if ended.returncode:
            raise SecretFault(f"{program} ended with code {ended.returncode}")
        return self._text(ended.stdout)

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

    def _look_at(self, path: Path) -> None:
        self._seen[path] = _stamp(path)


def secret_reader(settings: Settings, salt: str) -> SecretReader:
    """What the settings allow."""
    return SecretReader(
        salt, roots=settings.secret_roots, names=settings.secret_env, environ=os.environ,
        identity=settings.age_identity, programs=dict(settings.secret_programs),
    )  # fmt: skip


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
