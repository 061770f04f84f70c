"""gs://BUCKET/KEY: Google Cloud Storage.

Credentials come from a file as Google gives it out: the key of a service account, or what
`gcloud auth application-default login` writes. Without one from where obstore finds them: the environment
(GOOGLE_…), or the machine's own identity. A key's `gcs_base_url` names another place that speaks the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.artifact.objects import no_credentials, read_credentials
from agent.kit.mask import secrets

_SECRETS = ("private_key", "private_key_id", "refresh_token", "client_secret")


class Gcs:
    """See objects.Cloud."""

    scheme, name, bucket, flag = "gs", "Google Cloud Storage", "BUCKET", "--gcs-credentials-file"

    def __init__(self, credentials: Path | None) -> None:
        self._credentials = credentials

    def login(self) -> Mapping[str, str]:
        """See Cloud."""
        path = self._credentials
        if path is None:
            return {}
        text = read_credentials(path, self.flag)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):  # not the error's text: it may quote the file
            found = None
        if not isinstance(found, dict):
            raise no_credentials(path, self.flag, "not a JSON file of credentials")
        secrets.add(*(value for name in _SECRETS if isinstance(value := found.get(name), str) and value))
        if "private_key" in found:
            base = found.get("gcs_base_url")
            return {"service_account_key": text, **({"base_url": base} if isinstance(base, str) else {})}
        if "type" not in found:
            raise no_credentials(path, self.flag, "neither a service account's key nor anything known")
        return {"application_credentials": str(path), "": text}  # the text makes another client of it

    def store(self, bucket: str, login: Mapping[str, str], options: Mapping[str, Any]) -> Any:
        """See Cloud."""
        from obstore.store import GCSStore

        config: Any = {name: value for name, value in login.items() if name}
        return GCSStore(bucket, config=config, **options)
