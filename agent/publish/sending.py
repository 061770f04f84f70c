"""What is to be published becomes files, and the files go where they shall be."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.artifact.s3 import S3Access
from agent.artifact.source import path_of, shown, split
from agent.domain.oci_reference import SCHEME, Reference, parse
from agent.kit.machine import architecture
from agent.publish.http import Sender
from agent.publish.pack import Packed, Tell, pack
from agent.publish.places import Directory, Http, Item, Place, digest_of, publish
from agent.publish.registry import Blob, Image, Pusher
from agent.publish.s3 import Bucket
from agent.publish.sidecars import Signing, sidecars
from agent.publish.trouble import Trouble

Telling = Callable[[str], AbstractContextManager[Tell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to publish, and where.

    `target` is a URL of http(s), s3, oci or file, or a path; one that ends in a slash is a directory, in
    which the file gets a name. `name` and `version` make that name, `version` an image's tag as well.
    """

    sources: Sequence[Path]
    target: str
    name: str = ""
    version: str = ""
    platform: str = ""
    exclude: Sequence[str] = ()
    replace: bool = False
    signing: Signing | None = field(default=None, repr=False)
    credentials: Path | None = field(default=None, repr=False)
    s3: S3Access = field(default_factory=S3Access)
    registry_auth: Path | None = None
    insecure: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """What is there now. `sent` are bytes, 0 when all of it was there before."""

    url: str
    sha256: str
    size: int
    sent: int
    depends_on: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """Packed and named, but not sent. `url` is for people and the state."""

    url: str
    sha256: str
    size: int
    depends_on: str
    bring: Callable[[], Coroutine[Any, Any, int]] = field(repr=False)

    def send(self) -> Sent:
        """Bring it there. Blocks. Raises Trouble."""
        with _reading():
            sent = asyncio.run(self.bring())
        return Sent(self.url, self.sha256, self.size, sent, self.depends_on)


@contextmanager
def prepared(job: Job, telling: Telling) -> Iterator[Ready]:
    """Pack what has to be packed, into files that are gone afterwards. Blocks. Raises Trouble."""
    with tempfile.TemporaryDirectory(prefix="emptybox-publish-") as directory:
        with _reading():
            image = job.target.lower().startswith(f"{SCHEME}://")
            ready = (_image if image else _file)(job, Path(directory), telling)
        yield ready


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Trouble(f"{error.filename or 'a file'}: {error.strerror or error}") from None


def _file(job: Job, directory: Path, telling: Telling) -> Ready:
    if len(job.sources) != 1:
        raise Trouble("several PATHs are the layers of an image", "publish to oci://…, or one at a time")
    source = job.sources[0]
    url = _url(job, source)
    packed = _packed(job, source, directory / Path(path_of(url)).name, telling)
    item = Item(packed.path, url, packed.sha256, packed.size)
    contents = sidecars(packed.path, Path(path_of(url)).name, packed.sha256, job.signing)

    async def bring() -> int:
        async with Sender() as sender:
            place = _place(job, url, sender)
            with telling(f"sending {shown(url)}") as tell:
                fresh = await publish(place, item, tell, replace=job.replace)
            for suffix, data in ({} if split(url).query else contents).items():
                path = directory / f"beside{suffix}"
                path.write_bytes(data)
                beside = Item(path, url + suffix, hashlib.sha256(data).hexdigest(), len(data))
                await publish(place, beside, lambda _done, _all: None, replace=True)
        return packed.size if fresh else 0

    told = shown(url) if split(url).query else url  # a query may be a signature
    return Ready(told, packed.sha256, packed.size, packed.depends_on, bring)


def _image(job: Job, directory: Path, telling: Telling) -> Ready:
    reference = _reference(job)
    if job.signing is not None:
        raise Trouble("an image is signed in its registry", "sign what was pushed with cosign")
    if len({source.is_dir() for source in job.sources}) != 1:
        raise Trouble("an image has directories as its layers, an artifact has files: not both")
    blobs = []
    for number, source in enumerate(job.sources):
        packed = _packed(job, source, directory / f"{number}.tar", telling)
        title = "" if source.is_dir() else source.name
        blobs.append(Blob(packed.path, packed.sha256, packed.size, title))
    os_, _, arch = (job.platform or f"linux-{architecture()}").partition("-")
    image = Image(blobs, (os_, arch))

    async def bring() -> int:
        async with Sender() as sender:
            pusher = Pusher(sender, job.registry_auth, job.insecure)
            with telling(f"pushing {job.target}") as tell:
                return await pusher.push(reference, image, tell, replace=job.replace)

    url = f"{SCHEME}://{reference.host}/{reference.name}:{reference.tag}"
    return Ready(url, image.sha256, sum(blob.size for blob in blobs), "", bring)


def _packed(job: Job, source: Path, target: Path, telling: Telling) -> Packed:
    """A directory's archive at `target`; a file as it is."""
    if source.is_dir():
        with telling(f"packing {source}") as tell:
            return pack(source, target, job.exclude, tell)
    return Packed(source, digest_of(source), source.stat().st_size, 1)


def _reference(job: Job) -> Reference:
    last = job.target.rpartition("/")[2]
    text = (
        f"{job.target}:{job.version}" if job.version and ":" not in last and "@" not in last else job.target
    )
    try:
        reference = parse(text)
    except ValueError as error:
        raise Trouble(f"{text[:200]}: {error}") from None
    if not reference.tag or reference.hex:
        raise Trouble(
            f"{text[:200]}: an image is published under a tag", "write oci://HOST/NAME:TAG, or --version"
        )
    return reference


def _url(job: Job, source: Path) -> str:
    """Where exactly. Raises Trouble."""
    target = job.target
    if "://" not in target:
        ending = "/" if target.endswith("/") or Path(target).is_dir() else ""
        target = Path(os.path.abspath(target)).as_uri() + ending
    if "@" in split(target).netloc:
        raise Trouble(
            f"{shown(target)}: a login in a URL can be seen by everybody on this machine",
            "put it into a file: --credentials-file, or ~/.netrc",
        )
    if target.endswith("/"):
        name = job.name or source.resolve().name
        stem = f"{name}-{job.version}" if job.version else name
        target += f"{stem}.tar" if source.is_dir() else source.name
    return target


def _place(job: Job, url: str, sender: Sender) -> Place:
    scheme = split(url).scheme.lower()
    if scheme in ("http", "https"):
        return Http(sender, job.credentials)
    if scheme == "s3":
        return Bucket(job.s3)
    if scheme == "file":
        return Directory()
    raise Trouble(f"{shown(url)}: nothing is published there", "http(s)://, s3://, oci://, file:// or a path")
