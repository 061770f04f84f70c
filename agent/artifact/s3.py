"""s3://BUCKET/KEY: at Amazon's, or an endpoint that speaks the same (MinIO and others).

Credentials come from a file in the form of AWS (`[default]`, aws_access_key_id and so on); without one from
where obstore finds them: the environment (AWS_…), a web identity, the instance's own.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.artifact.objects import no_credentials, read_credentials
from agent.kit.mask import secrets

_SECTION = "default"
_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How S3 is reached. An `endpoint` that begins with http:// is spoken to in plain http."""

    endpoint: str = ""
    region: str = ""
    credentials: Path | None = None


class S3:
    """See objects.Cloud."""

    scheme, name, bucket, flag = "s3", "S3", "BUCKET", "--s3-credentials-file"

    def __init__(self, access: S3Access) -> None:
        self._access = access

    def login(self) -> Mapping[str, str]:
        """See Cloud."""
        access = self._access
        found = {"endpoint": access.endpoint, "region": access.region, **self._keys()}
        return {name: value for name, value in found.items() if value}

    def store(self, bucket: str, login: Mapping[str, str], options: Mapping[str, Any]) -> Any:
        """See Cloud."""
        from obstore.store import S3Store

        config: Any = dict(login)
        return S3Store(bucket, config=config, **options)

    def _keys(self) -> dict[str, str]:
        """What the file of credentials says; nothing without one."""
        path = self._access.credentials
        if path is None:
            return {}
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(read_credentials(path, self.flag))
            section = parser[_SECTION]
            found = {ours: section[theirs] for theirs, ours in _KEYS.items() if section.get(theirs)}
        except (configparser.Error, KeyError, ValueError):  # not the error's text: it quotes the file
            raise no_credentials(path, self.flag, f"not a file with a section [{_SECTION}]") from None
        if not {"access_key_id", "secret_access_key"} <= set(found):
            message = "aws_access_key_id or aws_secret_access_key is missing"
            raise no_credentials(path, self.flag, message)
        secrets.add(*(value for name, value in found.items() if name != "access_key_id"))
        return found
