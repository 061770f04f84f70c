"""Places outside the data directory: links that show the files of an app without a program.

Each is a symbolic link to APP/current/view, or to a file below that, and never changes again: one rename
of `current` changes what all places of an app show. A place is made only below a directory that the
agent's settings allow, reached without following any link, and only where nothing is or where a link of
ours is. What we made is listed in APP/places before it is made, so that nothing of it is ever forgotten.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.deploy.deployments import Deployment
from agent.deploy.instance import build_instance
from agent.deploy.layout import AppDirectory
from agent.domain.errors import OperatorNeeded
from agent.domain.model import new_id
from agent.domain.spec import PlaceSpec
from agent.kit.files import link_atomically, remove_tree, sync_filesystem, write_atomically

VIEW = "view"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Places:
    """The places of one app. Everything blocks, and raises OperatorNeeded and OSError.

    Args:
        directory: the app's.
        data: the agent's data directory, into which no place may lead.
        roots: directories below which places are allowed.
    """

    def __init__(self, directory: AppDirectory, data: Path, roots: Sequence[Path]) -> None:
        self._directory = directory
        self._data = os.path.realpath(data)
        self._roots = roots
        self._record = directory.root / "places"

    def text(self, place: PlaceSpec) -> str:
        """What the link says."""
        return "/".join(filter(None, (str(self._directory.root), "current", VIEW, place.inner)))

    def check(self, places: Iterable[PlaceSpec]) -> None:
        """Whether each can be made: PlaceNotAllowed, PlaceTaken or PlaceThroughLink otherwise."""
        for place in places:
            parent = self._parent(place.path)
            try:
                self._free(parent, place.path)
            finally:
                os.close(parent)

    def settle(self, places: Sequence[PlaceSpec]) -> None:
        """Make what is missing or wrong, take away what is not wanted any more."""
        wanted, known = {place.path for place in places}, self._known()
        if wanted - known:
            self._remember(wanted | known)
        for place in places:
            parent = self._parent(place.path)
            try:
                self._put(parent, place)
            finally:
                os.close(parent)
        for path in known - wanted:
            self._take_away(path)
        if known - wanted:
            self._remember(wanted)

    def drifted(self, places: Iterable[PlaceSpec]) -> list[str]:
        """The places that are not as they were made."""
        return [place.path for place in places if _read_link(place.path) != self.text(place)]

    # -- one place ---------------------------------------------------------------------------------

    def _put(self, parent: int, place: PlaceSpec) -> None:
        name, text = os.path.basename(place.path), self.text(place)
        found = self._free(parent, place.path)
        if found == text:
            return
        if found is None:
            os.symlink(text, name, dir_fd=parent)  # fails if something came meanwhile
        else:
            beside = f".{name[:200]}.emptybox"
            try:
                os.symlink(text, beside, dir_fd=parent)
            except FileExistsError:  # of one who was killed
                os.unlink(beside, dir_fd=parent)
                os.symlink(text, beside, dir_fd=parent)
            os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)

    def _free(self, parent: int, path: str) -> str | None:
        """What the link of ours at `path` says, None when nothing is there. Raises OperatorNeeded."""
        try:
            text = os.readlink(os.path.basename(path), dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise _taken(path, "a file or directory") from None
        if not self._ours(text) and path not in self._known():
            raise _taken(path, "a link of somebody else's")
        return text

    def _ours(self, text: str) -> bool:
        return text.startswith(f"{self._directory.root.parent}/")

    def _take_away(self, path: str) -> None:
        text = _read_link(path)
        if text is None or not self._ours(text):
            return
        try:
            parent = self._parent(path)
        except OperatorNeeded:
            return  # not allowed any more: the link leads nowhere, and is the operator's
        try:
            os.unlink(os.path.basename(path), dir_fd=parent)
            os.fsync(parent)
        finally:
            os.close(parent)

    def _parent(self, path: str) -> int:
        """The directory that holds a place, made where it is missing, opened without following a link."""
        root = self._root(path)
        real = os.path.realpath(root)
        if f"{real}/".startswith(f"{self._data}/"):
            raise _not_allowed(path, "lies in the agent's own data directory")
        parts = path[len(str(root)) + 1 :].split("/")[:-1]
        data = os.stat(self._data)
        fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                fd, above = _enter(fd, part, path), fd
                os.close(above)
                if os.path.samestat(os.fstat(fd), data):
                    raise _not_allowed(path, "lies in the agent's own data directory")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _root(self, path: str) -> Path:
        fitting = [root for root in self._roots if path.startswith(f"{root}/")]
        if not fitting:
            raise _not_allowed(path, "is below no directory that the agent's settings allow")
        return max(fitting, key=lambda root: len(str(root)))

    # -- the list ----------------------------------------------------------------------------------

    def _known(self) -> set[str]:
        try:
            return set(map(str, json.loads(self._record.read_bytes())))
        except (OSError, ValueError, TypeError):
            return set()

    def _remember(self, paths: set[str]) -> None:
        write_atomically(self._record, json.dumps(sorted(paths)).encode())


def build_view(deployment: Deployment) -> None:
    """Put together what the places of a deployment show: its release, its files, or both in one directory.

    Blocks. Raises OSError.
    """
    path, release, config = deployment.path, deployment.release, deployment.generation
    if release is not None and config is not None:
        view = path / new_id(VIEW)
        build_instance(view, release, config, {})
        sync_filesystem(view)  # before a link shows it
        text = view.name
    else:
        only = release or config
        assert only is not None, "an app with places has an artifact or files"
        text = os.path.relpath(only, path)
    link_atomically(path / VIEW, text)
    drop_views(path)


def drop_views(deployment: Path) -> None:
    """Remove the views of a deployment that no place shows: older ones, and half ones. Raises OSError."""
    shown = _read_link(deployment / VIEW)
    for view in deployment.glob(f"{VIEW}-*"):
        if view.name != shown:
            remove_tree(view)


def view_is_whole(deployment: Deployment) -> bool:
    """Whether places have something to show."""
    return (deployment.path / VIEW).is_dir()


def _enter(parent: int, part: str, path: str) -> int:
    try:
        return os.open(part, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(part, 0o755, dir_fd=parent)
        return os.open(part, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise OperatorNeeded(
            "PlaceThroughLink",
            f"the way to {path} leads through {part}, which is a link or no directory",
            where=path,
            remedy="name the directory that is really meant, and allow it with --place-root",
        ) from None


def _read_link(path: str | Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _not_allowed(path: str, why: str) -> OperatorNeeded:
    remedy = "start the agent with --place-root DIR, or take another place"
    return OperatorNeeded("PlaceNotAllowed", f"{path} {why}", where=path, remedy=remedy)


def _taken(path: str, what: str) -> OperatorNeeded:
    return OperatorNeeded(
        "PlaceTaken", f"{what} is at {path} already", where=path, remedy="move it away, or take another place"
    )
