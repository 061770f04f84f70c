"""The webhook receiver as the settings want it: a part of the composition root."""

from __future__ import annotations

from collections.abc import Sequence

from agent.config import Settings
from agent.kit.mask import secrets
from webhook.app import Receiver
from webhook.forges import forges
from webhook.signature import read_secrets
from webhook.sink import Sink


def receiver(settings: Settings, sink: Sink) -> Receiver:
    """Answers deliveries, and hands `sink` what they say."""
    return Receiver(
        sink,
        lambda: _secrets(settings),
        forges=forges(settings.webhook_header),
        proxies=settings.trusted_proxies,
    )


def _secrets(settings: Settings) -> Sequence[bytes]:
    """The secrets valid now; the file is read again on each delivery, so a rotation needs no restart."""
    if settings.webhook_secret_file is None:
        return ()
    found = read_secrets(settings.webhook_secret_file)
    secrets.add(*found)
    return found
