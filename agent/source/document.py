"""Bounded reading of one YAML or JSON document into nodes with places.

The tree is built from the parser's events, never by recursion: PyYAML's own constructors pass duplicate
keys, guess types, and the C one crashes the process on nesting of ten thousand levels. Bounds: bytes,
depth, aliases, and nodes counted with every alias spelled out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from agent.source.jsontext import JsonFault, tokens
from agent.source.nodes import Entry, Mapping, Node, Null, Scalar, Sequence
from agent.source.problems import Mark, Path, Problems, shown

BYTES_MAX = 1 << 20
DEPTH_MAX = 32
ALIASES_MAX = 1000
NODES_MAX = 50_000
KEY_MAX = 256  # characters

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Fatal(Exception):
    """Reading cannot go on after this mistake."""

    def __init__(self, mark: Mark, path: Path, message: str) -> None:
        super().__init__(message)
        self.mark, self.path, self.message = mark, path, message


def read_document(data: bytes, file: str, problems: Problems) -> Node | None:
    """The document in `data`; the ending of the name `file` says JSON or YAML.

    Mistakes are noted in `problems`. None when nothing could be read.
    """
    try:
        text = _decode(data, file)
        return (
            _read_json(text, file, problems) if file.endswith(".json") else _read_yaml(text, file, problems)
        )
    except _Fatal as fault:
        problems.add(fault.mark, fault.path, fault.message)
    return None


def _decode(data: bytes, file: str) -> str:
    if len(data) > BYTES_MAX:
        raise _Fatal(Mark(file), (), f"larger than {BYTES_MAX >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise _Fatal(Mark(file, line, column), (), "not UTF-8") from None


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence that is still open."""

    mark: Mark
    path: Path
    anchor: str | None
    entries: dict[str, Entry] | None  # None: a sequence
    items: list[Node] = field(default_factory=list)
    key: tuple[str, Mark] | None = None  # the key whose value comes next
    weight: int = 1


class _Builder:
    """Puts nodes together in the order in which a parser meets their parts."""

    def __init__(self, file: str, problems: Problems) -> None:
        self.root: Node | None = None
        self._file = file
        self._problems = problems
        self._open: list[_Frame] = []
        self._anchors: dict[str, Node] = {}
        self._pending: set[str] = set()
        self._aliases = 0
        self._nodes = 0

    def wants_key(self) -> bool:
        """Whether the next scalar is a key."""
        return bool(self._open) and self._open[-1].entries is not None and self._open[-1].key is None

    def path(self) -> Path:
        """Where the next value goes."""
        if not self._open:
            return ()
        frame = self._open[-1]
        if frame.entries is None:
            return (*frame.path, len(frame.items))
        return (*frame.path, frame.key[0]) if frame.key else frame.path

    def key(self, text: str, mark: Mark) -> None:
        """A mapping's key."""
        if len(text) > KEY_MAX:
            raise _Fatal(mark, self.path(), f"a key of more than {KEY_MAX} characters")
        if text == "<<":
            raise _Fatal(mark, self.path(), "merge keys (<<) are not supported, use extends")
        self._count(1, mark)
        self._open[-1].key = (text, mark)

    def begin(self, mark: Mark, *, mapping: bool, anchor: str | None = None) -> None:
        """A mapping or sequence begins."""
        if self.wants_key():
            hint = 'a key must be a text; a value that begins with {{ needs quotes: "{{ … }}"'
            raise _Fatal(mark, self.path(), hint)
        if len(self._open) >= DEPTH_MAX:
            raise _Fatal(mark, self.path()[:4], f"nested deeper than {DEPTH_MAX} levels")
        self._count(1, mark)
        if anchor is not None:
            self._pending.add(anchor)
        self._open.append(_Frame(mark, self.path(), anchor, {} if mapping else None))

    def end(self) -> None:
        """The innermost mapping or sequence ends."""
        frame = self._open.pop()
        node: Node
        if frame.entries is None:
            node = Sequence(frame.mark, frame.items, frame.weight)
        else:
            node = Mapping(frame.mark, frame.entries, frame.weight)
        if frame.anchor is not None:
            self._pending.discard(frame.anchor)
        self.value(node, frame.anchor, counted=True)

    def alias(self, anchor: str, mark: Mark) -> None:
        """A value that stands elsewhere."""
        self._aliases += 1
        if self._aliases > ALIASES_MAX:
            raise _Fatal(mark, self.path(), f"more than {ALIASES_MAX} aliases")
        if anchor in self._pending:
            raise _Fatal(mark, self.path(), f"the alias {shown(anchor)} refers to a value that holds it")
        if anchor not in self._anchors:
            raise _Fatal(mark, self.path(), f"the alias {shown(anchor)} refers to nothing")
        if self.wants_key():
            raise _Fatal(mark, self.path(), "a key must be a text, not an alias")
        node = self._anchors[anchor]
        self._count(node.weight, mark)
        self.value(node, None, counted=True)

    def value(self, node: Node, anchor: str | None = None, *, counted: bool = False) -> None:
        """A finished value: the document, an item, or the value of the key before it."""
        if not counted:
            self._count(1, node.mark)
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        frame = self._open[-1]
        frame.weight += node.weight
        if frame.entries is None:
            frame.items.append(node)
            return
        assert frame.key is not None
        (key, mark), frame.key = frame.key, None
        if key in frame.entries:
            first = frame.entries[key].mark.line
            self._problems.add(mark, (*frame.path, key), f"given twice, first in line {first}")
        else:
            frame.entries[key] = Entry(mark, node)

    def _count(self, nodes: int, mark: Mark) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise _Fatal(mark, self.path()[:4], f"more than {NODES_MAX} values")


def _read_yaml(text: str, file: str, problems: Problems) -> Node | None:
    builder = _Builder(file, problems)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            _take_event(builder, event, file)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        if error.encoding != "unicode":  # libyaml counts bytes
            before = text.encode()[: error.position].decode(errors="ignore")
        line = before.count("\n") + 1
        mark = Mark(file, line, len(before) - (before.rfind("\n") + 1) + 1)
        problems.add(mark, (), f"not YAML: {error.reason}")
        return None
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        mark = Mark(file) if place is None else Mark(file, place.line + 1, place.column + 1)
        problems.add(mark, (), f"not YAML: {shown(error.problem or error.context or 'cannot be read')}")
        return None
    if builder.root is None:
        problems.add(Mark(file), (), "is empty")
    return builder.root


def _take_event(builder: _Builder, event: yaml.Event, file: str) -> None:
    assert event.start_mark is not None
    mark = Mark(file, event.start_mark.line + 1, event.start_mark.column + 1)
    if isinstance(event, yaml.DocumentStartEvent):
        if builder.root is not None:
            raise _Fatal(mark, (), "a second document in one file")
    elif isinstance(event, yaml.AliasEvent):
        builder.alias(event.anchor or "", mark)
    elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        raise _Fatal(mark, builder.path(), f"YAML tags ({shown(event.tag)}) are not supported")
    elif isinstance(event, yaml.ScalarEvent):
        plain = event.style is None or event.style == ""
        null = plain and event.value in _NULLS
        if builder.wants_key():
            if null and event.value == "":
                raise _Fatal(mark, builder.path(), "a key is missing before the colon")
            builder.key(event.value, mark)
        else:
            builder.value(Null(mark) if null else Scalar(mark, event.value), event.anchor)
    elif isinstance(event, yaml.CollectionStartEvent):
        builder.begin(mark, mapping=isinstance(event, yaml.MappingStartEvent), anchor=event.anchor)
    elif isinstance(event, yaml.CollectionEndEvent):
        builder.end()


def _read_json(text: str, file: str, problems: Problems) -> Node | None:
    builder = _Builder(file, problems)
    try:
        for token in tokens(text):
            mark = Mark(file, token.line, token.column)
            match token.kind:
                case "key":
                    builder.key(token.text, mark)
                case "text":
                    builder.value(Scalar(mark, token.text))
                case "null":
                    builder.value(Null(mark))
                case "{" | "[":
                    builder.begin(mark, mapping=token.kind == "{")
                case _:
                    builder.end()
    except JsonFault as fault:
        problems.add(Mark(file, fault.line, fault.column), (), f"not JSON: {fault}")
        return None
    return builder.root
