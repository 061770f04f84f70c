"""The host for which a desired state is read."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from agent.kit.machine import architecture
from agent.source.secrets import SecretReader


@dataclass(frozen=True, slots=True)
class HostView:
    """What `only` and templates may ask about the host.

    `arch` is in the words of release files (amd64, arm64), `machine` in those of uname (x86_64). `secrets`
    reads the host's secrets; None where a state is only checked. `ports` are those that apps may listen on,
    all when there is no range, `own` the addresses and ports of the agent itself, which no app may have.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    os: str = "linux"
    arch: str = field(default_factory=architecture)
    machine: str = field(default_factory=platform.machine)
    ports: tuple[range, ...] = ()
    own: tuple[tuple[str, int], ...] = ()
    secrets: SecretReader | None = field(default=None, compare=False)

    def values(self) -> dict[str, Any]:
        """What templates see of the host."""
        return {
            "os": self.os,
            "arch": self.arch,
            "machine": self.machine,
            "host": {"name": self.name, "labels": dict(self.labels)},
        }

    def selected(self, only: Mapping[str, str | list[str]] | None) -> bool:
        """Whether each label named in `only` has one of its values here; None selects every host."""
        for label, values in (only or {}).items():
            wanted = [values] if isinstance(values, str) else values
            if self.labels.get(label) not in wanted:
                return False
        return True
