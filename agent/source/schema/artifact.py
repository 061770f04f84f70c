"""`artifact`: where the bytes are, what they must hash to, how they are unpacked."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

import msgspec

from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.domain.oci_reference import SCHEME, Reference, parse
from agent.source.problems import nearest, shown
from agent.source.schema.artifact_url import checked, headers, mirrors
from agent.source.schema.place import Place
from agent.source.schema.scalars import Raw
from agent.source.schema.secrets import Revealed
from agent.source.schema.signature import Signature, signature

HEX = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32}  # digits
WEAK = ("sha1", "md5")  # only with `weak: true`
Archive: TypeAlias = Literal[
    "auto", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip", "gz", "bz2", "xz", "zst", "none", "false"
]


class Artifact(Raw, frozen=True, kw_only=True):
    """Bytes to fetch."""

    url: str | None = None
    mirrors: list[str] | None = None
    headers: dict[str, str] | None = None
    checksum: str | dict[str, str] | None = None
    weak: bool | None = None
    signature: Signature | None = None
    strip: Annotated[int, msgspec.Meta(ge=0, le=32)] | None = None
    archive: Archive | None = None


def artifact_spec(raw: Artifact, place: Place, secrets: Revealed) -> ArtifactSpec:
    """What is to be fetched on this host. `secrets` are those of the app."""
    archive = "none" if raw.archive == "false" else raw.archive or "auto"
    url = ""
    if raw.url is None:
        place.missing("url")
    else:
        at = place / "url"
        url = checked(at.render(raw.url), at)
    expected = Checksum(algorithm="sha256")
    image = _image(url, place / "url")
    if image is not None:
        expected = _image_digest(image, raw, place)
    elif raw.checksum is None and (place.work.flat or (url or raw.url or "").startswith("git+")):
        pass  # a commit's id is one; the flat form may leave it out: whoever reads the state is warned
    elif raw.checksum is None:
        place.missing("checksum", "say sha256:… of the file, or sha256:URL of a file that lists it")
    else:
        expected = _checksum(raw.checksum, place / "checksum", bool(raw.weak))
    return ArtifactSpec(
        url=url,
        checksum=expected,
        signature=signature(raw.signature, place / "signature", of_image=image is not None),
        strip=raw.strip or 0,
        archive=archive,
        mirrors=mirrors(raw.mirrors, url, place / "mirrors"),
        headers=headers(raw.headers, url, place / "headers", secrets),
    )


def _image(url: str, place: Place) -> Reference | None:
    """What lies in an OCI registry; None for other URLs, and after a mistake was noted."""
    if not url.lower().startswith(f"{SCHEME}://"):
        return None
    try:
        return parse(url)
    except ValueError as error:
        place.problem(str(error))
        return None


def _image_digest(image: Reference, raw: Artifact, place: Place) -> Checksum:
    """The manifest's digest: from the URL, or `checksum`; both must agree."""
    expected = Checksum(algorithm="sha256", hex=image.hex)
    if raw.checksum is not None:
        at = place / "checksum"
        expected = _checksum(raw.checksum, at, bool(raw.weak))
        if expected.algorithm != "sha256" or expected.url:
            at.problem("what is in a registry is known by sha256:… of its manifest")
        elif image.hex and expected.hex and image.hex != expected.hex:
            at.problem("the url has another digest")
    elif not image.hex and not (place.work.flat and image.tag):
        place.missing("checksum", "say sha256:… of the manifest, or end the url with @sha256:…")
    return expected


def _checksum(raw: str | dict[str, str], place: Place, weak: bool) -> Checksum:
    if isinstance(raw, str):
        return checksum(raw, place, weak)
    view = place.view
    platform = f"{view.os}-{view.arch}"
    for name in raw:
        if not re.fullmatch(r"[a-z0-9]+-[a-z0-9_]+", name):
            (place / name).problem("a platform is written like linux-amd64 or linux-arm64", key=True)
    if platform not in raw:
        there = f"there is {', '.join(map(shown, list(raw)[:8]))}" if raw else "there is none"
        place.problem(f"no checksum for {platform}, which this host is; {there}", key=True)
    found = {name: checksum(text, place / name, weak) for name, text in raw.items()}
    return found.get(platform, Checksum(algorithm="sha256"))


def checksum(text: str, place: Place, weak: bool) -> Checksum:
    """`KIND:HEX`, HEX alone (its length tells the kind) or `KIND:URL`; mistakes are noted."""
    nothing = Checksum(algorithm="sha256")
    algorithm, colon, rest = place.render(text).partition(":")
    if not place.sound:
        return nothing
    if not colon and re.fullmatch(r"[0-9a-fA-F]+", algorithm):
        rest = algorithm
        algorithm = next((a for a, n in HEX.items() if len(rest) == n), "")
        if not algorithm:
            place.problem("is no digest: sha256 has 64 hexadecimal digits, sha512 has 128")
            return nothing
    elif not colon or algorithm not in HEX:
        place.problem(f"the kind of checksum is missing; write sha256:… or sha512:…{nearest(algorithm, HEX)}")
        return nothing
    if algorithm in WEAK and not weak:
        hint = "" if place.work.flat else " (or say weak: true beside it)"
        place.problem(f"{algorithm} is too weak; use sha256 or sha512{hint}")
        return nothing
    if "://" in rest:
        if rest.lower().startswith(f"{SCHEME}://"):
            place.problem("a file of checksums lies at http://, https:// or file://")
            return nothing
        return Checksum(algorithm=algorithm, url=checked(rest, place))
    if not re.fullmatch(rf"[0-9a-fA-F]{{{HEX[algorithm]}}}", rest):
        place.problem(f"{algorithm} has {HEX[algorithm]} hexadecimal digits, or is a URL; this is neither")
        return nothing
    return Checksum(algorithm=algorithm, hex=rest.lower())
