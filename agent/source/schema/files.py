"""`files`, `dirs` and `env`: what an app finds beside its release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.domain.spec import ManagedFile, OnChange
from agent.source.problems import dotted
from agent.source.schema.place import Place
from agent.source.schema.run import reload_spec
from agent.source.schema.scalars import Command, Mode, Raw
from agent.source.schema.secrets import Revealed, variable_name

FILES_MAX = 200
SECRET_MODE = 0o600  # of a file that holds a secret and names no mode


class Change(Raw, frozen=True, kw_only=True):
    """How the program is told of a change of this very file: by a signal, or by a command."""

    signal: str | None = None
    command: Command | None = None


class File(Raw, frozen=True, kw_only=True):
    """One file that the agent renders and the child reads."""

    template: str | None = None
    content: str | None = None
    target: str | None = None
    check: Command | None = None
    on_change: OnChange | Change | None = None
    mode: Mode | None = None


class Dirs(Raw, frozen=True, kw_only=True):
    """Directories that outlive releases: name in the instance directory by kind."""

    state: str | None = None
    cache: str | None = None
    logs: str | None = None


def managed_files(
    raw: list[File], place: Place, secrets: Revealed, *, mode: int = 0o640
) -> tuple[ManagedFile, ...]:
    """The rendered files, in order; `mode` is that of a file that names none and holds no secret.

    Their texts, and nothing else of them, may hold secrets: everybody can see paths and command lines.
    """
    if len(raw) > FILES_MAX:
        place.problem(f"more than {FILES_MAX} files")
        return ()
    return tuple(_file(file, place / index, mode, secrets) for index, file in enumerate(raw))


def _file(raw: File, place: Place, mode: int, secrets: Revealed) -> ManagedFile:
    target = ""
    if raw.target is None:
        place.missing("target")
    else:
        at = place / "target"
        target = at.relative(at.render(raw.target))
    content = ""
    secrets.used = False
    if raw.template is not None and raw.content is not None:
        (place / "content").problem("give template or content, not both", key=True)
    elif raw.content is not None:
        content = (place / "content").seeing(secrets=secrets).render_file(raw.content)
    elif raw.template is not None:
        content = (place / "template").seeing(secrets=secrets).template(raw.template)
    else:
        place.missing("template", "or write the text itself under content")
    own, on_change = None, raw.on_change or OnChange.RESTART
    if isinstance(on_change, Change):
        own = reload_spec(on_change.signal, on_change.command, place / "on_change")
        if on_change.signal is None and on_change.command is None:
            (place / "on_change").problem("give signal or command, or write reload, restart or none")
        on_change = OnChange.RELOAD
    return ManagedFile(
        target=target,
        content=content.encode(),
        mode=_mode(raw.mode, mode, place / "mode", secret=secrets.used),
        secret=secrets.used,
        on_change=on_change,
        reload=own,
        check=(place / "check").seeing(target=target).command(raw.check),
    )


def _mode(raw: Mode | None, default: int, place: Place, *, secret: bool) -> int:
    if raw is None:
        return SECRET_MODE if secret else default
    if secret and raw & 0o007:
        place.problem("the file holds secrets, which nobody but its user and group may read")
    return int(raw)


def directories(raw: Dirs | None, place: Place) -> dict[str, str]:
    """Kind to name in the instance directory."""
    found = {}
    for kind in ("state", "cache", "logs"):
        name = getattr(raw, kind, None)
        if name is not None:
            at = place / kind
            found[kind] = at.relative(name)
    return found


def check_overlaps(files: tuple[ManagedFile, ...], dirs: Mapping[str, str], place: Place) -> None:
    """Two names of one place, or one inside the other, cannot both be there."""
    taken: dict[str, str] = {}
    named: Iterable[tuple[str, Place]] = [
        *((name, place / "dirs" / kind) for kind, name in dirs.items()),
        *((file.target, place / "files" / index / "target") for index, file in enumerate(files)),
    ]
    for name, at in named:
        if not name:
            continue
        words = name.split("/")
        above = next((a for n in range(1, len(words)) if (a := "/".join(words[:n])) in taken), "")
        below = next((other for other in taken if other.startswith(f"{name}/")), "")
        if name in taken:
            at.problem(f"{name} is {taken[name]} already")
        elif above or below:
            at.problem(f"{name} and {above or below} ({taken[above or below]}) cannot both be there")
        else:
            taken[name] = dotted(at.path[2:4])


def environment(raw: Mapping[str, str] | None, place: Place) -> dict[str, str]:
    """The rendered variables."""
    found = {}
    for name, text in (raw or {}).items():
        at = place / name
        if variable_name(name, at):
            found[name] = at.render(text)
    return found
