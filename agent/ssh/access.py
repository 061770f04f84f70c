"""What the settings say about reaching SSH servers: keys, hosts to trust, hops. No input or output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SSH_PORT = 22
SYSTEM_KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))


@dataclass(frozen=True, slots=True)
class Host:
    """A server and who we are there; `shown` is what people are told of it."""

    host: str
    port: int
    user: str
    shown: str


@dataclass(frozen=True, slots=True)
class Words:
    """What failures are called: reasons, and what helps where."""

    denied: str
    unavailable: str
    key: str  # the setting that names the private key
    passphrase: str  # the one that names the file with its passphrase
    more: str  # what else may hold a key
    allow: str  # what to do with the public key


GIT = Words(
    "GitAuth", "GitUnavailable", "--ssh-key", "--ssh-passphrase-file", " or --ssh-agent",
    "add the public key to the repository as a deploy key that may read",
)  # fmt: skip
SFTP = Words(
    "ArtifactDenied", "ArtifactUnavailable", "--sftp-key", "--sftp-passphrase-file", "",
    "add the public key to the user's authorized_keys",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SshAccess:
    """How to reach SSH servers.

    Attributes:
        key: private key file (deploy key), read again at each connection; None for none.
        passphrase: file with the key's passphrase, read with it.
        known_hosts: files of the hosts that are trusted, sshd(8); empty means the user's and the system's.
        agent: socket of an ssh-agent whose keys are offered after `key`.
        jumps: hosts to go through, in order, each [USER@]HOST[:PORT]; the same keys and hosts count there.
        words: what failures are called.
    """

    key: Path | None = None
    passphrase: Path | None = None
    known_hosts: tuple[Path, ...] = ()
    agent: Path | None = None
    jumps: tuple[str, ...] = ()
    words: Words = GIT

    @property
    def known_hosts_files(self) -> tuple[Path, ...]:
        """The files to look in, whether they are there or not."""
        return tuple(path.expanduser() for path in self.known_hosts or SYSTEM_KNOWN_HOSTS)
