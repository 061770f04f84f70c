"""`emptybox validate`: every mistake of a state repository, without an agent: a check for its CI."""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli import options, words
from agent.cli.exit_codes import FAILED, OK

if TYPE_CHECKING:
    from agent.source.desired import HostView, Problem

NAMES = ("state.yaml", "state.yml", "state.json")


@dataclass(slots=True)
class _Findings:
    """What reading the state for some hosts brought up."""

    problems: set[Problem] = field(default_factory=set)
    warnings: dict[str, None] = field(default_factory=dict)
    left_out: int = 0
    apps: dict[str, str] = field(default_factory=dict)  # name -> version
    hosts: int = 0


@click.command(
    epilog=options.example(
        "emptybox validate",
        "emptybox validate --label env=prod --label role=web",
        "emptybox validate --all deploy/state.yaml",
        "emptybox validate --schema > state.schema.json",
    )
)
@click.argument("place", metavar="[PATH]", default=".", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--path", metavar="PATH", default="", help="State file or directory below PATH, as in emptybox run."
)
@click.option(
    "--label", "labels", metavar="NAME=VALUE", multiple=True, help="A label of the host, for `only`."
)
@click.option("--name", metavar="NAME", default="", help="Name of the host (default: this one's).")
@click.option("--all", "every", is_flag=True, help="Check for every combination of labels that `only` names.")
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of the state file, for editors, and exit."
)
@options.as_json
def command(
    place: Path, path: str, labels: tuple[str, ...], name: str, every: bool, schema: bool, as_json: bool
) -> int:
    """Check the state file in the repository PATH (default: here), or the state file PATH.

    Prints one mistake a line, as FILE:LINE:COLUMN KEY: MESSAGE, and exits 1 if there is any. Names in a
    state file are looked up in its repository: the nearest directory above it that holds .git.
    """
    if schema:
        from agent.source.schema.jsonschema import json_schema

        words.print_json(json_schema())
        return OK
    from agent.source.desired import HostView, views

    tree, inside = _located(place, path)
    host = HostView(name or socket.gethostname(), dict(_label(text) for text in labels))
    found = _read(tree, inside, views(tree, inside, host) if every else [host])
    if as_json:
        _tell_programs(found)
    else:
        _tell_people(found)
    return FAILED if found.problems else OK


def _located(place: Path, path: str) -> tuple[Path, str]:
    """The root of the repository, and the state's path in it ("" for the usual names)."""
    place = place.absolute()
    if path:
        return place, path
    if place.is_dir() and ((place / ".git").exists() or any((place / name).exists() for name in NAMES)):
        return place, ""
    base = place if place.is_dir() else place.parent
    root = next((above for above in (base, *base.parents) if (above / ".git").exists()), base)
    return root, "" if place == root else place.relative_to(root).as_posix()


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"--label: {text!r} is not NAME=VALUE")
    return name, value


def _read(tree: Path, path: str, hosts: list[HostView]) -> _Findings:
    from agent.source.desired import StateInvalid, load

    found = _Findings(hosts=len(hosts))
    for host in hosts:
        try:
            loaded = load(tree, path, host)
        except StateInvalid as error:
            found.problems.update(error.problems)
            found.left_out = max(found.left_out, len(error.info.log) - len(error.problems))
        else:
            found.warnings.update(dict.fromkeys(loaded.warnings))
            found.apps.update({name: spec.version for name, spec in loaded.apps.items()})
    return found


def _tell_people(found: _Findings) -> None:
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    for problem in sorted(found.problems):
        click.echo(words.clean(problem))
    if found.left_out:
        click.echo("there are more; these first")
    if not found.problems:
        apps = ", ".join(f"{name} {version}".rstrip() for name, version in found.apps.items()) or "no apps"
        hosts = "" if found.hosts == 1 else f" ({found.hosts} kinds of hosts)"
        click.echo(f"valid{hosts}: {words.clean(apps)}")


def _tell_programs(found: _Findings) -> None:
    words.print_json(
        {
            "valid": not found.problems,
            "problems": [{**asdict(p), "text": str(p)} for p in sorted(found.problems)],
            "warnings": list(found.warnings),
            "hosts": found.hosts,
            "apps": found.apps,
        }
    )
