"""A release written into a checked-out state repository: an app's version, URL and checksum, nothing else.

The agent's own reader says where the three stand and, after the edit, that it reads from the whole repository
what was meant: the version, the URL with its templates rendered, the digest. What it does not, is not kept.
"""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.domain.oci_reference import SCHEME
from agent.domain.oci_reference import parse as parse_reference
from agent.domain.spec import AppSpec
from agent.kit.machine import architecture
from agent.publish.edit import replaced
from agent.publish.sidecars import CHECKSUM
from agent.publish.trouble import Trouble
from agent.source.desired import HostView, StateInvalid, load, views
from agent.source.document import BYTES_MAX
from agent.source.merge import Document, read_state
from agent.source.nodes import Entry, Mapping, Node, Scalar
from agent.source.problems import Path as Keys
from agent.source.problems import Problems, dotted
from agent.source.schema.state import FLAT_APP, FLAT_NAMES, is_flat
from agent.source.tree import Tree

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Release:
    """What an app shall be from now on.

    `sha256` is hex. `platform` is OS-ARCH as in `checksum`; "" where one checksum is for all, and then this
    machine's in templates.
    """

    app: str
    version: str
    url: str
    sha256: str
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One scalar that was replaced."""

    file: str
    key: str
    before: str
    after: str


def write_release(tree: Path, path: str, release: Release) -> list[Change]:
    """Edit the files below `tree` so that they say `release`; what changed, nothing when they said it before.

    Args:
        tree: root of the checked-out repository.
        path: the state file or a directory of such in it; "" for the usual names.
        release: see Release.

    Blocks. Raises Trouble; the files may be edited in part by then.
    """
    return _Writing(tree, path, release).run()


@dataclass
class _Writing:
    tree: Path
    path: str
    release: Release
    changes: list[Change] = field(default_factory=list)

    def run(self) -> list[Change]:
        keys = _keys(self._document(), self.release.app)
        before = self._specs()  # a state with mistakes is not edited
        self._put(keys["version"], self.release.version)
        pinned = self._digest_in_url(keys["url"])
        if pinned:
            self._put(keys["url"], f"{self.release.url}@sha256:{self.release.sha256}")
        self._checksum(keys["checksum"], pinned)
        if not all(self._named(spec) for spec in self._specs()):
            self._put(keys["url"], self.release.url, template=True)
        for old, new in zip(before, self._specs(), strict=True):
            self._prove(new)
            self._same_signer(old, new)
        return self.changes

    def _document(self) -> Document:
        problems = Problems()
        document = read_state(Tree(self.tree), self.path, problems)
        if document is None or problems:
            raise _invalid([str(problem) for problem in problems.sorted()])
        return document

    def _specs(self) -> list[AppSpec]:
        """The app as each kind of host would read it."""
        os, _, arch = (self.release.platform or f"linux-{architecture()}").partition("-")
        machine = _MACHINES.get(arch, arch) if self.release.platform else platform.machine()
        host = HostView("host", {}, os, arch, machine)
        found = []
        for view in views(self.tree, self.path, host):
            try:
                loaded = load(self.tree, self.path, view)
            except StateInvalid as error:
                raise _invalid([str(problem) for problem in error.problems]) from None
            if self.release.app in loaded.apps:
                found.append(loaded.apps[self.release.app])
        if not found:
            raise Trouble(
                f"the state has no app {self.release.app}", "add it by hand first; then it is kept up"
            )
        return found

    def _checksum(self, at: Keys, pinned: bool) -> None:
        node = _find(self._document().root, at)
        if isinstance(node, Mapping):
            if self.release.platform not in node.entries:
                there = ", ".join(node.entries)
                asked = f"none for {self.release.platform}" if self.release.platform else "not one for all"
                raise Trouble(
                    f"{dotted(at)} has checksums by platform ({there}), {asked}",
                    "say --platform, or add it by hand first",
                )
            self._put((*at, self.release.platform), f"sha256:{self.release.sha256}")
        elif isinstance(node, Scalar) and "://" in node.text:
            return  # a file of checksums: whether it is the one beside our artifact is seen in the end
        elif node is not None or not (pinned or at == ("checksum",)):  # the flat form may leave it out
            self._put(at, f"sha256:{self.release.sha256}")

    def _digest_in_url(self, at: Keys) -> bool:
        node = _find(self._document().root, at)
        return isinstance(node, Scalar) and "@sha256:" in node.text

    def _named(self, spec: AppSpec) -> bool:
        """Whether the state names our URL, as it is written or by its templates."""
        there = spec.artifact.url if spec.artifact is not None else ""
        if not self.release.url.startswith(f"{SCHEME}://"):
            return there == self.release.url
        with suppress(ValueError):
            ours, theirs = parse_reference(self.release.url), parse_reference(there)
            same = (ours.host, ours.name, ours.tag) == (theirs.host, theirs.name, theirs.tag)
            return same and theirs.hex in ("", self.release.sha256)
        return False

    def _prove(self, spec: AppSpec) -> None:
        release, artifact = self.release, spec.artifact
        if artifact is None:
            raise Trouble(f"{release.app} has no artifact", "add it by hand first; then it is kept up")
        if release.version != spec.version or not self._named(spec):
            raise Trouble(
                f"after the edit the state reads {release.app} {spec.version} from {artifact.url}, "
                f"not {release.version} from {release.url}"
            )
        found = artifact.checksum
        if found.url and found.url != release.url + CHECKSUM:
            raise Trouble(
                f"the state takes {release.app}'s checksum from {found.url}, which is not what was published",
                f"write {release.url}{CHECKSUM} there, or a digest",
            )
        if found.hex and (found.algorithm, found.hex) != ("sha256", release.sha256):
            raise Trouble(f"after the edit the state reads {found.algorithm}:{found.hex}")

    def _same_signer(self, old: AppSpec, new: AppSpec) -> None:
        """A signature that the state names must not be that of other bytes."""
        assert old.artifact is not None
        assert new.artifact is not None
        signature = new.artifact.signature
        fixed = signature is not None and bool(signature.text or signature.url)
        if fixed and signature == old.artifact.signature and new.artifact.what != old.artifact.what:
            raise Trouble(
                f"the state has a signature of {new.name} that is one release's alone",
                "leave its url and text out, so that it is looked for beside the artifact",
            )

    def _put(self, at: Keys, value: str, *, template: bool = False) -> None:
        """Replace one scalar. A text with templates is only replaced with `template`."""
        document = self._document()
        node, shown = _find(document.root, at), dotted(at)
        if node is None:
            raise Trouble(f"the state has no {shown}", "add it by hand first; then it is kept up")
        assert isinstance(node, Scalar), "a valid state has nothing else there"
        if node.text == value:
            return
        if "{{" in node.text and not template:
            raise Trouble(f"{shown} is made by a template: {node.text[:100]}", "write the value itself there")
        file = node.mark.file
        if file != document.file and str(Path(file).parent) != str(Path(document.file)):
            raise Trouble(
                f"{shown} stands in {file}, which others may extend as well",
                f"give {document.file} a value of its own, or say --path {file}",
            )
        self._rewrite(file, at, value)
        self.changes.append(Change(file, shown, node.text, value))

    def _rewrite(self, file: str, at: Keys, value: str) -> None:
        place = self.tree / file
        if place.is_symlink() or place.resolve() != self.tree.resolve() / file:
            raise Trouble(f"{file} is reached by a symbolic link", "say --path with the real name")
        data = Tree(self.tree).read(file, BYTES_MAX)
        place.write_bytes(replaced(data, file, at, value))


def _keys(document: Document, app: str) -> dict[str, Keys]:
    """Where version, url and checksum of the app stand."""
    base: Keys = ("apps", app)
    keys = {"version": (*base, "version"), **{k: (*base, "artifact", k) for k in ("url", "checksum")}}
    if is_flat(document.root):
        if app != FLAT_APP:
            raise Trouble(f"the only app of a flat state is named {FLAT_APP}", f"say --app {FLAT_APP}")
        keys = {name: FLAT_NAMES[path] for name, path in keys.items()}
    return keys


def _find(root: Node, path: Keys) -> Node | None:
    node: Node | None = root
    for part in path:
        entry: Entry | None = node.entries.get(str(part)) if isinstance(node, Mapping) else None
        node = entry.node if entry is not None else None
    return node


def _invalid(problems: list[str]) -> Trouble:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Trouble(
        f"the state is not valid: {problems[0] if problems else 'it cannot be read'}{more}",
        "emptybox validate tells all",
    )
