"""What the agent's settings say about reaching servers: keys, hosts to trust, hops. No input or output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.config import Settings

SYSTEM_KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))


@dataclass(frozen=True, slots=True)
class SshAccess:
    """How to reach SSH servers.

    Attributes:
        key: private key file (deploy key), read again at each connection; None for none.
        passphrase: file with the key's passphrase, read with it.
        known_hosts: files of the hosts that are trusted, sshd(8); empty means the user's and the system's.
        agent: socket of an ssh-agent whose keys are offered after `key`.
        jumps: hosts to go through, in order, each [USER@]HOST[:PORT]; the same keys and hosts count there.
    """

    key: Path | None = None
    passphrase: Path | None = None
    known_hosts: tuple[Path, ...] = ()
    agent: Path | None = None
    jumps: tuple[str, ...] = ()

    @property
    def known_hosts_files(self) -> tuple[Path, ...]:
        """The files to look in, whether they are there or not."""
        return tuple(path.expanduser() for path in self.known_hosts or SYSTEM_KNOWN_HOSTS)


def ssh_access(settings: Settings) -> SshAccess:
    """What the settings say of SSH."""
    return SshAccess(
        settings.ssh_key, settings.ssh_passphrase_file, settings.ssh_known_hosts, settings.ssh_agent,
        settings.ssh_jumps,
    )  # fmt: skip
