"""Where symbolic links really lead, once all of a tree is known.

A look at one link's text is not enough: links that each stay inside can leave together (`a/s -> ..`,
then `t -> a/s/../x`). So each link is walked as the kernel would walk it, through all other links, in
memory, and refused as soon as it steps above the root.
"""

from __future__ import annotations

from agent.artifact.archive.refusal import harmful, too_large
from agent.artifact.limits import Limits

_HOPS = 40  # what Linux allows, see path_resolution(7)
_STEPS = 2_000_000  # over all links of a tree: they can be made to be walked for ever


class Links:
    """All symbolic links of a tree: path from the root to target, both as bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._targets: dict[bytes, bytes] = {}
        self._bytes = 0
        self._steps = 0

    def add(self, path: bytes, target: bytes) -> None:
        """Remember a link. Raises Refused for a target that cannot be right by itself."""
        if not target or b"\0" in target:
            raise harmful("a link without a target", path)
        if target.startswith(b"/"):
            raise harmful("a link to an absolute path", path)
        if len(target) > self._limits.path:
            raise harmful("a link whose target is too long", path)
        self._bytes += len(path) + len(target)
        if self._bytes > self._limits.links:
            raise too_large(f"more than {self._limits.links} bytes of symbolic links", path)
        self._targets[path] = target

    def check(self) -> None:
        """Walk every link. Raises Refused for the first that leaves the tree or never ends."""
        for path, target in self._targets.items():
            self._walk(path, target)

    def _walk(self, path: bytes, target: bytes) -> None:
        here = path.split(b"/")[:-1]  # a link's parents are directories, never links
        todo = target.split(b"/")[::-1]
        hops = 0
        while todo:
            self._steps += 1
            if self._steps > _STEPS:
                raise too_large("the symbolic links are too entangled to be checked", path)
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if not here:
                    raise harmful("a link that leads out of the tree", path)
                here.pop()
                continue
            here.append(part)
            if len(here) > self._limits.depth:
                raise harmful("a link that leads deeper than any file may lie", path)
            further = self._targets.get(b"/".join(here))
            if further is not None:
                hops += 1
                if hops > _HOPS:
                    raise harmful("a link that never ends", path)
                here.pop()
                todo.extend(further.split(b"/")[::-1])
