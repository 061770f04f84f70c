"""The state's files become one document: `extends` merged by RFC 7396, a directory's files put together.

Nodes carry their places, so every value of the result still knows the file it came from. Bounds: files,
bytes, the depth of `extends`, and the work of merging, because few files can ask for much of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.source.document import BYTES_MAX, read_document
from agent.source.nodes import Entry, Mapping, Node, Null, Scalar, Sequence, kind
from agent.source.problems import Mark, Path, Problems, shown
from agent.source.tree import Tree, TreeFault, normal

DEPTH_MAX = 5  # steps of `extends` from the state file to its farthest base
FILES_MAX = 100
TOTAL_BYTES_MAX = 4 << 20
WORK_MAX = 200_000  # keys merged
VALUES_MAX = 100_000  # of all files together, aliases spelled out
NAMES = ("state.yaml", "state.yml", "state.json")
ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Document:
    """The merged document and where it was found ("" path: one of NAMES)."""

    root: Mapping
    file: str


@dataclass(frozen=True, slots=True)
class _Layered:
    """A file merged onto its bases; height is the number of `extends` steps below it."""

    root: Mapping
    height: int


class _TooMuch(Exception):
    """A bound of the whole was passed; already noted."""


def read_state(tree: Tree, path: str, problems: Problems) -> Document | None:
    """The whole state at `path` (a file, a directory, or "" for the usual names), merged.

    Mistakes are noted in `problems`; None when there is nothing to go on with.
    """
    reader = _Reader(tree, problems)
    try:
        return reader.state(path)
    except TreeFault as fault:
        problems.add(Mark(shown(path)), (), str(fault))
    except _TooMuch:
        pass
    return None


class _Reader:
    """One reading; files that several others extend are read and merged once."""

    def __init__(self, tree: Tree, problems: Problems) -> None:
        self._tree = tree
        self._problems = problems
        self._done: dict[str, _Layered | None] = {}
        self._bytes = 0
        self._values = 0
        self._work = 0

    def state(self, path: str) -> Document | None:
        if not path:
            return self._default()
        path = normal(path)
        if self._tree.is_directory(path):
            return self._directory(path)
        return self._file(path)

    def _default(self) -> Document | None:
        found = [name for name in NAMES if self._tree.exists(name)]
        if not found:
            text = "is not there, nor state.yml or state.json: nothing says what should run"
            self._problems.add(Mark(NAMES[0]), (), text)
            return None
        if len(found) > 1:
            text = f"is not the only one, {' and '.join(found[1:])} is there too: keep one"
            self._problems.add(Mark(found[0]), (), text)
            return None
        return self._file(found[0])

    def _file(self, name: str) -> Document | None:
        layered = self._layered(name, Mark(name), ())
        return Document(layered.root, name) if layered else None

    def _directory(self, name: str) -> Document | None:
        prefix = "" if name == "." else f"{name}/"
        files = [f for f in self._tree.names(name) if f.endswith(ENDINGS) and not f.startswith(".")]
        if not files:
            self._problems.add(Mark(shown(name)), (), "is a directory without a .yaml, .yml or .json file")
            return None
        together: Mapping | None = None
        for file in files:
            layered = self._layered(prefix + file, Mark(prefix + file), ())
            if layered is not None:
                together = layered.root if together is None else self._put(together, layered.root, ())
        return Document(together, name) if together else None

    def _layered(self, name: str, asked: Mark, chain: tuple[str, ...]) -> _Layered | None:
        """A file merged onto what it extends. `asked` is the place that asks for it."""
        if name in chain:
            circle = " → ".join(shown(n) for n in (*chain[chain.index(name) :], name))
            self._problems.add(asked, ("extends",), f"goes in a circle: {circle}")
            return None
        if len(chain) > DEPTH_MAX:
            self._too_deep(asked)
            return None
        if name not in self._done:
            self._done[name] = self._merged(name, asked, (*chain, name))
        return self._done[name]

    def _too_deep(self, mark: Mark) -> None:
        self._problems.add(mark, ("extends",), f"goes deeper than {DEPTH_MAX} files")

    def _merged(self, name: str, asked: Mark, chain: tuple[str, ...]) -> _Layered | None:
        root = self._read(name, asked, top=len(chain) == 1)
        if root is None:
            return None
        entry = root.entries.get("extends")
        if entry is None:
            return _Layered(root, 0)
        own = replace(root, entries={k: e for k, e in root.entries.items() if k != "extends"})
        result: Mapping | None = None
        height = 0
        for base, mark in self._bases(entry.node, name):
            layered = self._layered(base, mark, chain)
            if layered is None:
                continue
            if layered.height >= DEPTH_MAX:
                self._too_deep(mark)
                continue
            height = max(height, layered.height + 1)
            result = layered.root if result is None else self._onto(result, layered.root)
        return _Layered(own if result is None else self._onto(result, own), height)

    def _read(self, name: str, asked: Mark, *, top: bool) -> Mapping | None:
        path: Path = () if top else ("extends",)
        if len(self._done) >= FILES_MAX:
            self._problems.add(asked, path, f"more than {FILES_MAX} files")
            raise _TooMuch
        try:
            data = self._tree.read(name, BYTES_MAX)
        except TreeFault as fault:
            self._problems.add(asked, path, str(fault) if top else f"{shown(name)} {fault}")
            return None
        self._bytes += len(data)
        if self._bytes > TOTAL_BYTES_MAX:
            self._problems.add(asked, path, f"more than {TOTAL_BYTES_MAX >> 20} MiB in all files together")
            raise _TooMuch
        node = read_document(data, name, self._problems)
        self._values += node.weight if node else 0
        if self._values > VALUES_MAX:
            self._problems.add(asked, path, f"more than {VALUES_MAX} values in all files together")
            raise _TooMuch
        if node is None or isinstance(node, Mapping):
            return node
        self._problems.add(node.mark, (), f"expected a mapping, found {kind(node)}")
        return None

    def _bases(self, node: Node, file: str) -> list[tuple[str, Mark]]:
        """The names in the tree that `extends` lists, each once."""
        found: dict[str, Mark] = {}
        for item in node.items if isinstance(node, Sequence) else [node]:
            if not isinstance(item, Scalar) or not item.text:
                self._problems.add(item.mark, ("extends",), "expected the name of a file")
                continue
            try:
                name = normal(item.text, file)
            except TreeFault as fault:
                self._problems.add(item.mark, ("extends",), f"{shown(item.text)} {fault}")
                continue
            if name in found:
                self._problems.add(item.mark, ("extends",), f"{shown(name)} is listed twice")
            found.setdefault(name, item.mark)
        return list(found.items())

    def _onto(self, base: Mapping, patch: Mapping) -> Mapping:
        """RFC 7396, section 2: mappings merge, nothing takes away, anything else replaces."""
        self._charge(patch.mark, len(base.entries) // 64)
        entries = dict(base.entries)
        for key, entry in patch.entries.items():
            self._charge(entry.mark)
            below = entries.get(key)
            if isinstance(entry.node, Null):
                entries.pop(key, None)
            elif isinstance(entry.node, Mapping):
                old = below.node if below is not None and isinstance(below.node, Mapping) else None
                empty = Mapping(entry.node.mark, {})
                node = self._onto(old or empty, entry.node)
                entries[key] = Entry(entry.mark, node)
            else:
                entries[key] = entry
        return Mapping(patch.mark, entries)

    def _put(self, left: Mapping, right: Mapping, path: Path) -> Mapping:
        """Two files of a directory: what both say must come from one common base."""
        entries = dict(left.entries)
        for key, entry in right.entries.items():
            self._charge(entry.mark)
            other = entries.get(key)
            here = (*path, key)
            if other is None:
                entries[key] = entry
            elif not path and isinstance(other.node, Mapping) and isinstance(entry.node, Mapping):
                entries[key] = Entry(other.mark, self._put(other.node, entry.node, here))
            elif entry.node is not other.node and not _same_word(entry.node, other.node):
                place = f"{other.mark.file}:{other.mark.line}"
                self._problems.add(
                    entry.mark, here, f"is defined in {place} too; a directory's files share nothing"
                )
        return Mapping(left.mark, entries)

    def _charge(self, mark: Mark, steps: int = 1) -> None:
        self._work += steps
        if self._work > WORK_MAX:
            self._problems.add(mark, (), f"merging takes more than {WORK_MAX} steps")
            raise _TooMuch


def _same_word(left: Node, right: Node) -> bool:
    """`schema: 1` may stand in every file."""
    return isinstance(left, Scalar) and isinstance(right, Scalar) and left.text == right.text
