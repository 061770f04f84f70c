"""The content-addressed store of unpacked releases. Only what is whole has a name in it.

    ROOT/trees/RELEASE/...   whole, verified, never changed again
    ROOT/layers/NAME/...     layers of images, each once, as agent.artifact.oci.layer has them
    ROOT/made-of/RELEASE     names of the layers a release was made of, one a line
    ROOT/inventories/NAME    what a tree or a layer holds, as agent.artifact.inventory has it
    ROOT/signed/DIGEST      who signed what, see agent.artifact.trust.marks
    ROOT/blobs/HEX           artifacts whose digest had to be learned by fetching them (see Artifacts.pin)
    ROOT/partial/HEX         beginnings of artifacts whose delivery broke off, see agent.artifact.partial
    ROOT/tmp/                what is being written now
    ROOT/trash/              what is being removed, slowly

A tree is written below tmp, synced, and appears below trees by one rename. So after a power cut or a
kill -9 it is there whole or not at all; what is left in tmp is swept aside at the next start.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from agent.artifact.sharing import share
from agent.artifact.trust.marks import Marks
from agent.kit.files import remove_tree, sync_directory, sync_filesystem
from agent.kit.threads import settled

_RELEASE = re.compile(r"[0-9a-z][0-9a-z-]{7,127}\Z")
AGAIN = "-again"  # ends the id of a release that is fetched to put another right
_PARTIALS = 4
_DAY = 86400.0  # seconds
_JUST = 5.0  # seconds
_BREATH = 0.01  # seconds of rest after every hundred files removed


class Store:
    """Trees and temporary files below `root`, which belongs to one agent. Makes nothing until `sweep`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trees = root / "trees"
        self._blobs = root / "blobs"
        self._layers = root / "layers"
        self._made_of = root / "made-of"
        self._inventories = root / "inventories"
        self._partial = root / "partial"
        self.signed = root / "signed"
        self._temp = root / "tmp"
        self._trash = root / "trash"
        self._in_use: Counter[str] = Counter()
        self._names = iter(range(1 << 62))
        self._seen: dict[str, float] = {}
        self._emptying = asyncio.Lock()

    def path(self, release: str) -> Path:
        """Where the tree of a release is, or will be. Raises ValueError for what is no release id."""
        if not _RELEASE.match(release):
            raise ValueError(f"{release!r} is not a release id")
        return self._trees / release

    def has(self, release: str) -> bool:
        """Whether the tree is there (and therefore whole)."""
        return self.path(release).is_dir()

    def blob(self, digest: str) -> Path:
        """Where the bytes of this digest (hex) are kept, if they are."""
        return self._blobs / digest

    def sweep(self) -> None:
        """Make the directories, and move aside what an earlier life left behind. Blocks for some renames.

        To be called before the first delivery. `collect` and `empty_trash` remove what was moved aside.
        Raises OSError.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        own = (
            self._layers, self._made_of, self._inventories, self.signed,
            self._blobs, self._partial, self._temp, self._trash,
        )  # fmt: skip
        for directory in (self._trees, *own):
            directory.mkdir(exist_ok=True)
            # Whatever the umask is: apps run as other users.
            directory.chmod(0o755 if directory == self._trees else 0o700)
        sync_directory(self.root)
        again = [tree for tree in self._trees.iterdir() if tree.name.endswith(AGAIN)]
        halves = [half for place in (self._inventories, self.signed) for half in place.glob(".*.tmp")]
        for leftover in [*self._temp.iterdir(), *self._blobs.iterdir(), *again, *halves]:
            self._discard(leftover)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the directories beside that of the releases."""
        return ("layers", "inventories", "blobs", "partial", "tmp", "trash")

    def used(self, name: str) -> bool:
        """Whether somebody uses it just now, so that `collect` leaves it alone."""
        return self._in_use[name] > 0

    def releases(self) -> list[str]:
        """Ids of the releases that are there. Raises OSError."""
        return sorted(tree.name for tree in self._trees.iterdir() if not tree.name.endswith(AGAIN))

    def layers(self) -> list[str]:
        """Names of the layers that are there. Raises OSError."""
        return sorted(layer.name for layer in self._layers.iterdir())

    def layers_of(self, release: str) -> list[str]:
        """Names of the layers a release was made of. Raises OSError."""
        try:
            return (self._made_of / release).read_text().split()
        except FileNotFoundError:
            return []

    def inventory(self, name: str) -> Path:
        """Where the inventory of a release or a layer is."""
        return self._inventories / name

    def discard_layer(self, name: str) -> None:
        """Take a layer away that is not what it was; releases made of it stay. Raises OSError."""
        self._discard(self.layer(name))

    def discard_again(self, release: str) -> None:
        """Take away what was fetched to put `release` right. Raises OSError."""
        again = self.path(release + AGAIN)
        if again.exists():
            self._discard(again)
        self.inventory(again.name).unlink(missing_ok=True)
        (self._made_of / again.name).unlink(missing_ok=True)

    def partial(self, digest: str) -> Path:
        """Where the beginning of an artifact is kept while it is not whole."""
        return self._partial / digest

    def layer(self, name: str) -> Path:
        """Where a layer is, or will be."""
        return self._layers / name

    def saw(self, release: str) -> None:
        """The release was found to be what it should be just now, or was just made."""
        self._seen[release] = time.monotonic()

    def just_seen(self, release: str) -> bool:
        """Whether that was within seconds. Said once: the next who asks looks again."""
        return time.monotonic() - self._seen.pop(release, -math.inf) < _JUST

    @contextmanager
    def using(self, *names: str) -> Iterator[None]:
        """While this is open, `collect` leaves these releases and layers alone."""
        self._in_use.update(names)
        try:
            yield
        finally:
            self._in_use.subtract(names)

    async def collect(self, keep: Collection[str]) -> list[str]:
        """Remove every release neither in `keep` nor in use, their layers and all blobs; returns the ids.

        They are gone from the store at once (a few renames); the files themselves are then removed slowly,
        which may be cancelled and is gone on with the next time. Raises OSError.
        """
        removed = []
        for tree in sorted(self._trees.iterdir()):
            if tree.name not in keep and not self._in_use[tree.name]:
                self._discard(tree)
                self._seen.pop(tree.name, None)
                removed.append(tree.name)
        self._collect_layers()
        await self._settle_names()
        self._collect_inventories()
        self._forget_partials()
        known = {name[:12] for name in (*os.listdir(self._trees), *+self._in_use)}
        Marks(self.signed).forget(lambda digest: digest[:12] in known)
        if not +self._in_use:
            for blob in self._blobs.iterdir():
                self._discard(blob)
        await self.empty_trash()
        return removed

    async def empty_trash(self) -> None:
        """Remove what was moved aside, with rests. Cancelling it stops it soon. Raises OSError."""
        async with self._emptying:
            stop = Event()
            work = asyncio.get_running_loop().run_in_executor(None, self._empty, stop)
            await settled(work, on_cancel=stop.set)

    def new_temp(self) -> Path:
        """A path below tmp that nobody has yet."""
        return self._temp / f"{os.getpid()}-{time.time_ns():x}-{next(self._names)}"

    def publish(self, temp: Path, release: str, written: Path, *, share: bool = False) -> Path:
        """Make a tree written below tmp appear under its id, to stay, with its inventory `written`.

        With `share` it first gets the files it has in common with the newest releases.

        One syncfs(2) writes out all of its files and directories: measured on ext4 that is never slower
        than an fsync for each (0.4 ms either way for one file, 0.8 against 4 ms for twenty). Only then may
        it be renamed; the fsync of the parent makes the rename itself last. Blocks. Raises OSError.
        """
        if share:
            self._share(temp, written)
        path = self._publish(temp, self.path(release), written)
        self.saw(release)
        return path

    def publish_layer(self, temp: Path, name: str, written: Path) -> None:
        """The same for a layer. Blocks. Raises OSError."""
        self._publish(temp, self.layer(name), written)

    def note_layers(self, release: str, names: Collection[str]) -> None:
        """Remember what a release is about to be made of; both must be in use. Blocks. Raises OSError."""
        temp = self.new_temp()
        temp.write_text("".join(f"{name}\n" for name in names))
        os.rename(temp, self._made_of / release)  # `publish` syncs it

    def _share(self, temp: Path, written: Path) -> None:
        known = [(tree, self.inventory(tree.name)) for tree in self._trees.iterdir()]
        known.sort(key=lambda pair: pair[0].lstat().st_mtime, reverse=True)
        share(temp, written, known)

    def _publish(self, temp: Path, target: Path, written: Path) -> Path:
        if not target.is_dir():  # else what is there has its own
            os.rename(written, self.inventory(target.name))
        sync_filesystem(temp)
        try:
            os.rename(temp, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            remove_tree(temp)  # the same content is there already
            written.unlink(missing_ok=True)
        sync_directory(target.parent)
        return target

    def _forget_partials(self) -> None:
        """Leave the youngest beginnings, for a day: whoever waits to try again will ask for them."""
        found = sorted(((_age(path), path) for path in self._partial.iterdir()), key=lambda pair: pair[0])
        for number, (age, path) in enumerate(found):
            if not self._in_use[path.name] and (number >= _PARTIALS or age > _DAY):
                self._discard(path)

    def _collect_layers(self) -> None:
        """Remove the layers that no release is made of."""
        kept: set[str] = set()
        for note in self._made_of.iterdir():
            if self.has(note.name) or self._in_use[note.name]:
                kept.update(note.read_text().split())
            else:
                note.unlink()
        for layer in self._layers.iterdir():
            if layer.name not in kept and not self._in_use[layer.name]:
                self._discard(layer)

    async def _settle_names(self) -> None:
        """See to it that no power cut brings back a release or layer of which a part is gone already.

        A rename is on the disk as a whole or not at all, so where everything went is synced, once.
        """
        if any(self._trash.iterdir()):
            loop = asyncio.get_running_loop()
            await settled(loop.run_in_executor(None, sync_directory, self._trash))

    def _collect_inventories(self) -> None:
        for written in self._inventories.iterdir():
            name = written.name
            there = self._in_use[name] or (self._trees / name).is_dir() or self.layer(name).is_dir()
            if not there and not name.endswith(".tmp"):
                written.unlink()

    def _discard(self, path: Path) -> None:
        os.rename(path, self._trash / f"{time.time_ns():x}-{next(self._names)}")

    def _empty(self, stop: Event) -> None:
        def breathe() -> None:
            if stop.wait(_BREATH):
                raise InterruptedError

        for leftover in self._trash.iterdir():
            try:
                remove_tree(leftover, breathe)
            except InterruptedError:
                return


def _age(partial: Path) -> float:
    """Seconds since bytes were last added."""
    try:
        return time.time() - (partial / "bytes").stat().st_mtime
    except OSError:
        return math.inf
