"""What this machine is, in the words of release files."""

from __future__ import annotations

import platform

# Names of `uname -m` in the words of release files.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv8l": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
}


def architecture() -> str:
    """amd64, arm64 and so on; what is not known is called as uname has it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)
