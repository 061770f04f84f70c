"""Bounds of fetching and unpacking, on by default: what the other side sends is not trusted."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    body: int = 10 * GIB  # what one download may be long
    unpacked: int = 20 * GIB  # what one archive may become
    entries: int = 200_000  # headers and directories of one archive
    ratio: int = 250  # output by input of a compressed archive ...
    ratio_from: int = 64 * MIB  # ... looked at from this much output on
    depth: int = 64  # components of one path
    path: int = 4095  # PATH_MAX without its NUL, for paths and link targets
    name: int = 255  # NAME_MAX, one component
    links: int = 8 * MIB  # names and targets of symbolic links, kept in memory until they are checked
    header: int = MIB  # one extension header (PAX record, GNU long name)
    directory: int = 32 * MIB  # the list of entries at the end of a zip, kept in memory
    checksum_file: int = MIB
    redirects: int = 5
    connect: float = 10.0  # DNS, TCP and TLS together
    idle: float = 30.0  # silence on an open connection
    total: float = 1800.0  # one whole download


DEFAULTS = Limits()
