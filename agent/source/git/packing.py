"""A path of a commit as bytes, the same on every machine: a file as it is, a directory as a tar.

The tar has the files and symbolic links of the directory, in the order of their names in Git (directories as
if they ended with a slash), with modes 644 and 755, time 0 and no owner, in GNU's format. Its digest may be
in states: this layout does not change. Refused: submodules, Git LFS pointers, names that no file may have.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from agent.domain.errors import Permanent
from agent.source.git.export import DIRECTORY, FILES, LINK, SUBMODULE, is_lfs, is_plain, refused, too_large
from agent.source.git.objects import BLOB, read_tree
from agent.source.git.pktline import Garbled
from agent.source.git.transport import Objects

ENTRIES = 200_000
DEPTH = 64
BYTES = 1 << 30  # what the objects of one pack may be together
_PIECE = 256 * 1024


def pack(objects: Objects, tree: str, path: str, where: str) -> Iterator[bytes]:
    """The bytes of `path` ("" for everything) below the tree with the id `tree`, a piece at a time. Blocks.

    Raises Permanent ("ArtifactNotFound", "TreeRefused", "TreeTooLarge"), KeyError, Garbled.
    """
    mode, oid = _find(objects, tree, path.encode(), where)
    if mode in FILES:
        yield from _pieces(_blob(objects, oid, path.encode()))
    elif mode == DIRECTORY:
        yield from _tar(objects, oid)
    else:
        raise refused("neither a file nor a directory", path.encode())


def _find(objects: Objects, tree: str, path: bytes, where: str) -> tuple[int, str]:
    mode, oid = DIRECTORY, tree
    for part in path.split(b"/") if path else ():
        entries = read_tree(objects, oid) if mode == DIRECTORY else iter(())
        found = next(((kind, entry) for name, kind, entry in entries if name == part), None)
        if found is None:
            message = f"the commit has no {path.decode('utf-8', 'replace')}"
            raise Permanent("ArtifactNotFound", message, where=where, remedy="correct the URL")
        mode, oid = found
    return mode, oid


def _tar(objects: Objects, tree: str) -> Iterator[bytes]:
    levels = [(b"", read_tree(objects, tree))]
    count = size = written = 0
    while levels:
        above, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        name, mode, oid = entry
        path = above + name
        count += 1
        if count > ENTRIES:
            raise too_large(f"more than {ENTRIES} entries", path)
        if not is_plain(name):
            raise refused("a name that no file may have", path)
        if mode == DIRECTORY:
            if len(levels) >= DEPTH:
                raise too_large(f"more than {DEPTH} levels", path)
            levels.append((path + b"/", read_tree(objects, oid)))
            continue
        if mode == SUBMODULE:
            raise refused("a submodule, which is not supported", path)
        content = _blob(objects, oid, path)
        size += len(content)
        if size > BYTES:
            raise too_large(f"more than {BYTES} bytes", path)
        head = _header(path, mode, content)
        yield head
        written += len(head)
        if mode != LINK:
            yield from _pieces(content)
            padding = -len(content) % tarfile.BLOCKSIZE
            if padding:
                yield bytes(padding)
            written += len(content) + padding
    yield bytes(2 * tarfile.BLOCKSIZE + -(written + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)


def _header(path: bytes, mode: int, content: bytes) -> bytes:
    info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
    if mode == LINK:
        info.type, info.mode = tarfile.SYMTYPE, 0o777
        info.linkname = content.decode("utf-8", "surrogateescape")
    elif mode in FILES:
        info.mode, info.size = FILES[mode], len(content)
    else:
        raise refused(f"an entry of unknown mode {mode:o}", path)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _blob(objects: Objects, oid: str, path: bytes) -> bytes:
    kind, content = objects.get(oid)
    if kind != BLOB:
        raise Garbled(f"{oid} is not a blob")
    if is_lfs(content):
        raise refused("a Git LFS pointer, which is not supported", path)
    return content


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]
