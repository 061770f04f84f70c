"""az://CONTAINER/KEY: Azure Blob Storage.

The account and its key, or a shared access signature, stand in a file as a connection string, as the portal
and `az storage account show-connection-string` give it out. Without one obstore finds them: the environment
(AZURE_…), a workload's or the machine's own identity.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.artifact.objects import no_credentials, read_credentials
from agent.kit.mask import secrets

_KEYS = {
    "accountname": "account_name",
    "accountkey": "account_key",
    "sharedaccesssignature": "sas_key",
    "blobendpoint": "endpoint",
}
_FORM = "DefaultEndpointsProtocol=https;AccountName=NAME;AccountKey=KEY;EndpointSuffix=core.windows.net"


class Azure:
    """See objects.Cloud."""

    scheme, name, bucket, flag = "az", "Azure", "CONTAINER", "--azure-connection-file"

    def __init__(self, connection: Path | None) -> None:
        self._connection = connection

    def login(self) -> Mapping[str, str]:
        """See Cloud."""
        path = self._connection
        if path is None:
            return {}
        text = read_credentials(path, self.flag).strip()
        parts = [part.partition("=") for part in text.split(";") if part]
        given = {name.strip().lower(): value.strip() for name, _, value in parts}
        found = {ours: given[theirs] for theirs, ours in _KEYS.items() if given.get(theirs)}
        secrets.add(*(found[name] for name in ("account_key", "sas_key") if name in found))
        suffix = given.get("endpointsuffix", "")
        if "account_name" in found and suffix and "endpoint" not in found:
            protocol = "http" if given.get("defaultendpointsprotocol", "").lower() == "http" else "https"
            found["endpoint"] = f"{protocol}://{found['account_name']}.blob.{suffix}"
        if "endpoint" in found and "account_name" not in found:  # a signature's string names no account
            found["account_name"] = found["endpoint"].partition("://")[2].partition(".")[0]
        self._check(found, path)
        return found

    def store(self, bucket: str, login: Mapping[str, str], options: Mapping[str, Any]) -> Any:
        """See Cloud."""
        from obstore.store import AzureStore

        config: Any = dict(login)
        return AzureStore(bucket, config=config, **options)

    def _check(self, found: Mapping[str, str], path: Path) -> None:
        if "account_name" not in found or not {"account_key", "sas_key"} & set(found):
            raise no_credentials(path, self.flag, f"not a connection string like {_FORM}")
        try:
            base64.b64decode(found.get("account_key", ""), validate=True)
        except binascii.Error:
            raise no_credentials(path, self.flag, "its AccountKey is not base64") from None
