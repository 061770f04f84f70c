"""What atheris calls: the readers of all senders, past the signature and before it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

from multidict import CIMultiDict

SECRET = b"a secret of the fuzzer"
NAMES = (
    "X-Hub-Signature",
    "X-Hub-Signature-256",
    "X-Gitlab-Token",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "X-Signature",
    "Authorization",
    "X-Gitea-Signature",
)
EVENTS = ("push", "create", "delete", "release", "package", "repo:push", "repo:refs_changed", "Push Hook")


def main() -> None:
    """Hand control to libFuzzer, which does not give it back."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["webhook"]):
        table = importlib.import_module("webhook.forges").forges()
        refused = importlib.import_module("webhook.signature").SignatureRefused
        invalid = importlib.import_module("webhook.payloads.forge").PayloadInvalid
        source_of = importlib.import_module("webhook.sources").source_of

    def one(data: bytes) -> None:
        if len(data) < 2:
            return
        forge, event = table[data[0] % len(table)], EVENTS[data[1] % len(EVENTS)]
        headers: CIMultiDict[str] = CIMultiDict()
        for kind in ("X-GitHub-Event", "X-Gitea-Event", "X-Forgejo-Event", "X-Gogs-Event", "X-Event-Key"):
            headers[kind] = event
        with contextlib.suppress(invalid):
            forge.read(headers, data[2:])
        text = data[2:202].decode("latin-1")
        for number, name in enumerate(NAMES):
            headers[name] = text[number:]
        headers["Content-Type"] = "application/x-www-form-urlencoded" if data[1] & 128 else "application/json"
        headers["X-Signature-256"] = headers[":token"] = text
        with contextlib.suppress(refused, invalid):
            forge.verify(headers, data[2:], [SECRET, b"whsec_AAAA"])
            raise AssertionError(f"{forge.name} took what nobody signed")
        source_of(text[:40], text, ())

    atheris.Setup([sys.argv[0], *sys.argv[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
