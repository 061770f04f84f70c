"""Real signatures: keys of ssh-keygen and gpg, and git commits and tags made with them.

ada = SshSigner(tmp_path / "ada"); state.signer = ada; await state.commit({...})
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kit.ssh_server import keygen, need


@dataclass(frozen=True)
class Signer:
    """Settings with which git signs: words for its command line."""

    flags: tuple[str, ...]


class SshSigner(Signer):
    """A new key of ssh-keygen; `line` is its line in a file of allowed signers."""

    def __init__(self, key: Path, kind: str = "ed25519") -> None:
        keygen(key, kind)
        super().__init__(("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}"))
        object.__setattr__(self, "key", key)

    key: Path

    def line(self, options: str = "") -> str:
        """Principal (the key's name), options, key."""
        public = self.key.with_suffix(".pub").read_text().split()
        return " ".join([f"{self.key.name}@example.org", *([options] if options else []), *public[:2]]) + "\n"

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen prints it."""
        command = [need("ssh-keygen"), "-l", "-f", str(self.key)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]

    def sign(self, payload: bytes, namespace: str = "git", *options: str) -> bytes:
        """A signature by ssh-keygen -Y sign."""
        command = [need("ssh-keygen"), "-q", "-Y", "sign", "-n", namespace, *options, "-f", str(self.key)]
        return subprocess.run(command, input=payload, check=True, capture_output=True).stdout

    def accepts(self, payload: bytes, signature: bytes) -> bool:
        """Whether ssh-keygen -Y verify does, for files."""
        allowed, made = self.key.with_suffix(".allowed"), self.key.with_suffix(".made")
        allowed.write_text(self.line())
        made.write_bytes(signature)
        who = f"{self.key.name}@example.org"
        command = [need("ssh-keygen"), "-Y", "verify", "-n", "file", "-I", who, "-f", str(allowed)]
        done = subprocess.run([*command, "-s", str(made)], input=payload, check=False, capture_output=True)
        return done.returncode == 0


class MinisignSigner:
    """A new key of minisign, without a password."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.public = directory / "minisign.pub"
        self.key = directory / "minisign.key"
        self._directory = directory
        self._run("-G", "-W", "-p", str(self.public), "-s", str(self.key))

    @property
    def text(self) -> str:
        """The public key, as it is written into a state."""
        return self.public.read_text().splitlines()[1]

    def sign(self, payload: bytes, *options: str) -> bytes:
        """A signature by minisign -S."""
        file = self._directory / "signed"
        file.write_bytes(payload)
        made = self._directory / "signed.minisig"
        self._run("-S", *options, "-s", str(self.key), "-m", str(file), "-x", str(made))
        return made.read_bytes()

    def accepts(self, payload: bytes, signature: bytes) -> bool:
        """Whether minisign -V does."""
        file, made = self._directory / "checked", self._directory / "checked.minisig"
        file.write_bytes(payload)
        made.write_bytes(signature)
        command = [need("minisign"), "-V", "-q", "-p", str(self.public), "-m", str(file), "-x", str(made)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def _run(self, *arguments: str) -> None:
        subprocess.run([need("minisign"), *arguments], check=True, capture_output=True)


class GpgSigner(Signer):
    """A new key of gpg in a keyring of its own. Made by `gpg_signer`."""

    def __init__(self, home: Path, name: str, directory: Path) -> None:
        wrapper = directory / "gpg"
        wrapper.write_text(f'#!/bin/sh\nexec {need("gpg")} --homedir {home} "$@"\n')
        wrapper.chmod(0o755)
        super().__init__(
            ("-c", "gpg.format=openpgp", "-c", f"gpg.program={wrapper}", "-c", f"user.signingkey={name}")
        )
        object.__setattr__(self, "wrapper", wrapper)
        quick = ["--batch", "-q", "--passphrase", "", "--quick-gen-key", name, "ed25519", "sign", "1y"]
        self.gpg(*quick)

    wrapper: Path

    def gpg(self, *arguments: str) -> bytes:
        """Run gpg with this keyring."""
        return subprocess.run([self.wrapper, *arguments], check=True, capture_output=True).stdout

    def sign(self, payload: bytes, *options: str) -> bytes:
        """A detached signature."""
        command = [str(self.wrapper), "--batch", *options, "--detach-sign"]
        return subprocess.run(command, input=payload, check=True, capture_output=True).stdout

    def public(self) -> bytes:
        """All public keys, armored."""
        return self.gpg("--armor", "--export")

    @property
    def fingerprint(self) -> str:
        """Of the primary key."""
        lines = self.gpg("--with-colons", "--list-keys").decode().splitlines()
        return next(line for line in lines if line.startswith("fpr:")).split(":")[9]


@contextlib.contextmanager
def gpg_signer(directory: Path, name: str = "Ada <ada@example.org>") -> Iterator[GpgSigner]:
    """A key, and its gpg-agent gone in the end."""
    # Not below `directory`: the path of the agent's socket may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        Path(home).chmod(0o700)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            yield GpgSigner(Path(home), name, directory)
        finally:
            subprocess.run([need("gpgconf"), "--homedir", home, "--kill", "all"], check=False)
