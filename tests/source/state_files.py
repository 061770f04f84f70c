"""Small state repositories on disk for tests, and what is wrong with them as lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.domain.spec import AppSpec
from agent.source.desired import HostView, Loaded, load, validate

HERE = HostView("box-1", {"env": "prod", "zone": "a"}, arch="amd64", machine="x86_64")
SHA = "sha256:" + "ab" * 32

# An app with nothing wrong; tests add lines to it.
APP = """\
apps:
  web:
    version: 1.10
    run: {command: [bin/web]}
"""


def write(tree: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write the files below `tree`."""
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return tree


def read(tree: Path, files: Mapping[str, str | bytes] | str, path: str = "", view: HostView = HERE) -> Loaded:
    """What is wanted by a repository of these files; a text alone is state.yaml."""
    return load(write(tree, {"state.yaml": files} if isinstance(files, str) else files), path, view)


def web(tree: Path, lines: str, files: Mapping[str, str | bytes] | None = None) -> AppSpec:
    """The app `web` with more lines under it."""
    return read(tree, {"state.yaml": with_lines(lines), **(files or {})}).apps["web"]


def with_lines(lines: str) -> str:
    """APP and more lines, indented to stand under `web`."""
    return APP + "".join(f"    {line}\n" for line in lines.splitlines())


def mistakes(
    tree: Path, files: Mapping[str, str | bytes] | str, path: str = "", view: HostView = HERE
) -> list[str]:
    """What is wrong with a repository of these files, as lines."""
    write(tree, {"state.yaml": files} if isinstance(files, str) else files)
    return [str(problem) for problem in validate(tree, path, view)]
