from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.artifact.failures import storage_failure
from agent.domain.errors import Failure, OperatorNeeded, Permanent, Transient

WHERE = "https://releases.example/web.tar.gz"


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (errno.ENOSPC, OperatorNeeded, "DiskFull"),
        (errno.EDQUOT, OperatorNeeded, "DiskFull"),
        (errno.EROFS, OperatorNeeded, "DiskReadOnly"),
        (errno.EACCES, OperatorNeeded, "PermissionDenied"),
        (errno.EPERM, OperatorNeeded, "PermissionDenied"),
        (errno.EIO, OperatorNeeded, "StoreFailing"),
        (errno.EMFILE, Transient, "ResourcesShort"),
        (errno.ENAMETOOLONG, Permanent, "ArchiveRefused"),
        (errno.EMLINK, Permanent, "ArchiveRefused"),
    ],
)
def test_an_error_of_the_disk_says_who_has_to_do_what(
    code: int, kind: type[Failure], reason: str, tmp_path: Path
) -> None:
    failure = storage_failure(OSError(code, os.strerror(code), "some/file"), tmp_path, WHERE)
    assert isinstance(failure, kind)
    assert failure.reason == reason
    assert WHERE in str(failure)
    if kind is OperatorNeeded:
        assert failure.info.remedy


def test_a_full_disk_is_told_even_when_it_cannot_be_asked(tmp_path: Path) -> None:
    failure = storage_failure(OSError(errno.ENOSPC, "No space left"), tmp_path / "gone", WHERE)
    assert failure.reason == "DiskFull"
