"""Whether the keys that artifacts must be signed with can be read, and count."""

from __future__ import annotations

from agent.artifact.trust.rules import check
from agent.config import Settings
from agent.doctor.findings import Finding, Verdict


def signers(settings: Settings) -> list[Finding]:
    """A finding for each file of keys that --require-signature names. Blocks."""
    found = []
    for file, wrong, count in check(settings.signature_rules):
        subject = f"keys {file}"
        if wrong:
            remedy = "correct it: no artifact that must be signed by its keys can be deployed"
            found.append(Finding(subject, Verdict.BAD, wrong, remedy))
        else:
            found.append(
                Finding(subject, Verdict.OK, f"{count} key{'s' if count != 1 else ''} that may sign")
            )
    return found
