"""Any error as a failure people can read; the unexpected ones leave their trace in the log."""

from __future__ import annotations

import errno
import logging

from agent.domain.errors import Failure, FailureInfo, FailureKind

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)


def as_info(error: BaseException, where: str) -> FailureInfo:
    """Any error as a FailureInfo; an unexpected one is logged with its trace and needs a human.

    Of a group of errors, the first expected one speaks for all.
    """
    if isinstance(error, BaseExceptionGroup):
        expected = error.subgroup(lambda e: isinstance(e, (Failure, OSError)))
        error = _first(expected if expected is not None else error)
    if isinstance(error, Failure):
        return error.info
    if isinstance(error, OSError) and error.errno in _FULL:
        return FailureInfo(
            FailureKind.OPERATOR,
            "DiskFull",
            f"{error.strerror}",
            where=str(error.filename or where),
            remedy="free space on the data directory's file system",
        )
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return FailureInfo(
            FailureKind.OPERATOR,
            "DiskReadOnly",
            f"{error.strerror}",
            where=str(error.filename or where),
            remedy="make the data directory's file system writable",
        )
    if isinstance(error, OSError):
        told = error.strerror or str(error) or type(error).__name__
        return FailureInfo(FailureKind.OPERATOR, "SystemError", told, where=str(error.filename or where))
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return FailureInfo(
            FailureKind.OPERATOR,
            "NoResources",
            f"{error}",
            where=where,
            remedy="raise the limit of processes for the agent's user, or end some: it is tried again",
        )
    log.error("%s failed unexpectedly", where, exc_info=error)
    return FailureInfo(
        FailureKind.OPERATOR,
        "InternalError",
        f"{type(error).__name__}: {error}",
        where=where,
        remedy="this is a defect of emptybox: the agent's log has its trace",
    )


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
