"""What the agent's settings say about reaching Git servers. No input or output."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import Settings
from agent.ssh.access import SshAccess


@dataclass(frozen=True, slots=True)
class HttpAccess:
    """How to reach HTTP servers.

    Attributes:
        authority: PEM file of authorities that are trusted beside the system's, or None.
        certificate: PEM file of the certificate shown to servers that ask for one, or None.
        key: PEM file of its private key; None when that is in the same file.
        proxy: URL of a proxy, http://[USER:PASSWORD@]HOST:PORT, or "".
        rewrites: (FROM, TO): addresses and redirects that begin with FROM go to TO instead.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    proxy: str = field(default="", repr=False)
    rewrites: tuple[tuple[str, str], ...] = ()

    def stamps(self) -> tuple[tuple[int, int], ...]:
        """Changes when one of the files does."""
        found = []
        for path in (self.authority, self.certificate, self.key):
            with suppress(OSError):
                status = os.stat(path) if path is not None else None
                found.append((status.st_mtime_ns, status.st_ino) if status else (0, 0))
        return tuple(found)

    def mapped(self, url: str) -> str | None:
        """Where an address goes by the longest fitting rewrite; None when none fits."""
        fitting = [rewrite for rewrite in self.rewrites if url.startswith(rewrite[0])]
        if not fitting:
            return None
        begin, instead = max(fitting, key=lambda rewrite: len(rewrite[0]))
        return instead + url[len(begin) :]


def http_access(settings: Settings) -> HttpAccess:
    """What the settings say of HTTP."""
    return HttpAccess(
        settings.git_ca, settings.git_client_cert, settings.git_client_key, settings.git_proxy,
        settings.git_rewrites,
    )  # fmt: skip


def ssh_access(settings: Settings) -> SshAccess:
    """What the settings say of SSH."""
    return SshAccess(
        settings.ssh_key, settings.ssh_passphrase_file, settings.ssh_known_hosts, settings.ssh_agent,
        settings.ssh_jumps,
    )  # fmt: skip
