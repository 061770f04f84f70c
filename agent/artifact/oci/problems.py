"""What is wrong with what a registry holds, told in one way."""

from __future__ import annotations

from agent.domain.errors import Permanent


def broken(message: str, where: str) -> Permanent:
    """It is malformed."""
    return Permanent("ManifestBroken", message, where=where, remedy="push it again")


def unsupported(message: str, where: str, remedy: str) -> Permanent:
    """It is nothing that we take."""
    return Permanent("ManifestUnsupported", f"{message} is not supported", where=where, remedy=remedy)
