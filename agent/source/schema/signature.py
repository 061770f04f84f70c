"""`artifact.signature`: whose signature the bytes must have, and where it lies."""

from __future__ import annotations

import re

from agent.domain.artifact_spec import SignatureSpec
from agent.domain.oci_reference import SCHEME
from agent.kit.signatures import keys, openpgp
from agent.kit.signatures.refused import KeyInvalid
from agent.source.schema.artifact_url import checked
from agent.source.schema.place import Place
from agent.source.schema.scalars import Raw
from agent.source.tree import TreeFault


class Signature(Raw, frozen=True, kw_only=True):
    """Whose signature the bytes must have, and where it is: beside the artifact, if nothing else is said."""

    minisign: str | None = None
    ssh: str | None = None
    cosign: str | None = None
    openpgp: str | None = None
    url: str | None = None
    text: str | None = None


def signature(raw: Signature | None, place: Place, *, of_image: bool) -> SignatureSpec | None:
    """Whose signature, and where; mistakes are noted."""
    if raw is None:
        return None
    given = [kind for kind in keys.KINDS if getattr(raw, kind) is not None]
    if len(given) > 1:
        place.problem(f"names keys of {' and '.join(given)}; one kind is enough", key=True)
        return SignatureSpec()
    kind = given[0] if given else ""
    held = _keys(getattr(raw, kind), kind, place / kind) if kind else ""
    if of_image and kind not in ("", "cosign"):
        (place / kind).problem("what is in a registry is signed by cosign", key=True)
    where, text = "", (place / "text").render(raw.text) if raw.text is not None else ""
    for name in ("url", "text"):
        if of_image and getattr(raw, name) is not None:
            (place / name).problem("the signatures of what is in a registry are in it as well", key=True)
    if raw.url is not None and raw.text is not None:
        (place / "text").problem("give url or text, not both", key=True)
    elif raw.url is not None:
        at = place / "url"
        where = checked(at.render(raw.url), at)
        if where.lower().startswith(f"{SCHEME}://"):
            at.problem("a signature lies where a single file can: http://, https://, file:// or s3://")
    elif not kind and raw.text is None:
        place.problem(f"names neither a key ({', '.join(keys.KINDS)}) nor a url or text", key=True)
    if len(text) > keys.TEXT_MAX:
        (place / "text").problem("is too long for a signature")
    return SignatureSpec(kind=kind, keys=held, url=where, text=text)


def _keys(raw: str, kind: str, place: Place) -> str:
    """The keys themselves, or those in a file of the repository that is named; "" after a mistake."""
    text = place.render(raw).strip()
    if not place.sound:
        return ""
    try:
        if not re.search(r"\s|^RW", text):
            text = place.work.renderer.raw(text, keys.TEXT_MAX).decode()
        if keys.parse(text.encode()).kinds != (kind,):
            raise KeyInvalid("it is a key of another kind")
    except (KeyInvalid, TreeFault) as error:
        hint = "write the key, or the name of a file in the state repository that holds it"
        place.problem(f"no {kind} key: {error}; {hint}")
    except UnicodeDecodeError:
        place.problem("the file is not text; export OpenPGP keys with --armor")
    except openpgp.NotInstalled:
        return text  # that is the host's fault, which is told when the key is needed
    return text
