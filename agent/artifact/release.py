"""What an artifact becomes, and the identity of that."""

from __future__ import annotations

from dataclasses import dataclass

from agent.artifact.archive.unpack import SINGLE, Form
from agent.artifact.checksum import LENGTHS
from agent.artifact.source import path_of, split
from agent.domain.artifact_spec import ArtifactSpec
from agent.domain.oci_reference import SCHEME
from agent.domain.spec import canonical_digest

_LAYOUT = 1  # raise it when the same bytes begin to be unpacked differently

_FORMS = {form.value: form for form in Form} | {"none": Form.PLAIN}
_ARCHIVE_NAMES = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz"),
    *(".tar.xz", ".txz", ".tar.zst", ".tzst"),
)
_PROGRAM_NAMES = (".jar", ".war", ".whl", ".apk")  # zip archives that are used as they are


@dataclass(frozen=True, slots=True)
class Packing:
    """How bytes become a tree. `target` is where one plain file goes, `strip` is for archives."""

    form: Form
    target: str
    strip: int


def packing(spec: ArtifactSpec, app: str) -> Packing:
    """How the artifact of `app` is to be unpacked.

    With `archive: auto` the content decides; but what is named .tar, .tar.gz, .zip and so on must be one, so
    that apps which share an archive share its release, whatever their names; and a .jar is one file.
    """
    form = _FORMS[spec.archive]
    if form is Form.AUTO:
        path = path_of(spec.url).lower()
        if path.endswith(_ARCHIVE_NAMES):
            form = Form.ARCHIVE
        elif path.endswith(".zip"):
            form = Form.ZIP
        elif path.endswith(_PROGRAM_NAMES):
            form = Form.PLAIN
    return Packing(form, spec.plain_name or f"bin/{app}", spec.strip)


def release_id(spec: ArtifactSpec, app: str, *, share: bool = False) -> str:
    """The identity of the unpacked tree, and the name of its directory in the store.

    Made of the start of the artifact's digest, to be recognised by people, and a digest over all that has
    a say in what the tree looks like. With `share` it is one whose files may be those of other releases, too:
    an app that could write to them must never get it.

    Raises ValueError when the digest is not known yet, or is none.
    """
    checksum = spec.checksum
    if not checksum.hex:
        raise ValueError(f"the checksum of {path_of(spec.url)} is not pinned")
    how = packing(spec, app)
    digest = checksum.hex.lower()
    if len(digest) != LENGTHS[checksum.algorithm] or not set(digest) <= set("0123456789abcdef"):
        raise ValueError(f"{checksum.hex!r} is no {checksum.algorithm} digest")
    content: list[object] = [_LAYOUT, checksum.algorithm, digest]
    if split(spec.url).scheme == SCHEME:  # what it holds is not known before its manifest
        content += ["oci", spec.archive, how.target, how.strip]
    elif how.form is Form.PLAIN:
        content += ["plain", how.target]
    elif how.form in SINGLE:
        content += ["single", how.target]
    elif how.form is Form.AUTO:
        content += ["auto", how.target, how.strip]
    else:
        content += ["archive", how.strip]
    if share:
        content.append("shared")
    return f"{digest[:12]}-{canonical_digest(content)[:40]}"
