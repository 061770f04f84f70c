"""Sections whose features have not landed: their shape is decided, using them is refused."""

from __future__ import annotations

from agent.source.schema.scalars import Command, Duration, Raw


class Job(Raw, frozen=True, kw_only=True):
    """A program that runs to its end, on a schedule."""

    command: Command | None = None
    schedule: str | None = None
    time_zone: str | None = None
    timeout: Duration | None = None
