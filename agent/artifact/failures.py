"""What errors of the operating system mean for a delivery."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient

# Said by the kernel about names and links that the archive brought along.
_ARCHIVES_FAULT = {errno.ENAMETOOLONG, errno.EMLINK, errno.EILSEQ, errno.EINVAL, errno.EFBIG}


def storage_failure(error: OSError, root: Path, where: str) -> Failure:
    """The failure for an OSError met while writing below `root`; `where` names the artifact."""
    text = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(root, where, text)
    if error.errno == errno.EROFS:
        return OperatorNeeded(
            "DiskReadOnly", f"{root}: {text}", where=where, remedy="make the data directory writable"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return OperatorNeeded(
            "PermissionDenied",
            f"{_path(error, root)}: {text}",
            where=where,
            remedy="let the agent's user write to the data directory",
        )
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return Transient("ResourcesShort", text, where=where)
    if error.errno in _ARCHIVES_FAULT:
        return Permanent("ArchiveRefused", f"{_path(error, root)}: {text}", where=where)
    return OperatorNeeded(
        "StoreFailing", f"{_path(error, root)}: {text}", where=where, remedy="look at the disk and its logs"
    )


def disk_full(root: Path, where: str, text: str = "", *, needed: int | None = None) -> OperatorNeeded:
    """DiskFull, with numbers."""
    try:
        space = os.statvfs(root)
        free = f"{space.f_bavail * space.f_frsize} bytes and {space.f_favail} inodes are free at {root}"
    except OSError:
        free = f"at {root}"
    wanted = f"{needed} bytes are needed, " if needed is not None else f"{text}: " if text else ""
    return OperatorNeeded("DiskFull", wanted + free, where=where, remedy="free space, or keep fewer releases")


def _path(error: OSError, root: Path) -> str:
    name = error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else str(root)
