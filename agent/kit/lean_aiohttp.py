"""Import aiohttp without loading every certificate authority of the machine, twice.

aiohttp makes two TLS contexts while it is imported, a verifying one and one for `ssl=False`, and both
read all authorities: about 40 ms and 2 MiB, paid even by a process that never speaks TLS. `load`
imports it with a verifying context that reads them at its first handshake instead, and an empty file
in their place for the other one, which never looks at them. What is verified stays the same. Call it
before anything else imports aiohttp; afterwards it does nothing.
"""

from __future__ import annotations

import os
import ssl
import sys
from typing import Any


class LateTrust(ssl.SSLContext):
    """The context of `ssl.create_default_context()`, its authorities loaded when first needed."""

    _loaded = False

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Load the authorities once, then as ssl.SSLContext does: every asyncio handshake begins here."""
        if not self._loaded:
            self.load_default_certs(ssl.Purpose.SERVER_AUTH)
            self._loaded = True
        return super().wrap_bio(*args, **kwargs)


def _late_default_context(*_args: Any, **_kwargs: Any) -> LateTrust:
    context = LateTrust(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host name
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    return context


def load() -> None:
    """Import aiohttp. Not to be called while other threads make TLS contexts."""
    if "aiohttp" in sys.modules:
        return
    eager = ssl.create_default_context
    environment = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    ssl.create_default_context = _late_default_context
    os.environ.update(dict.fromkeys(environment, os.devnull))
    try:
        import aiohttp  # noqa: F401
    finally:
        ssl.create_default_context = eager
        for name, value in environment.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
