"""`emptybox pack`: a directory or a file as an archive that is the same on every machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from agent.cli import options, words
from agent.cli.exit_codes import FAILED, OK


@click.command(
    epilog=options.example(
        "emptybox pack dist -o web-1.4.0.tar",
        "emptybox pack dist -o web-1.4.0.tar.zst --exclude .git --exclude '*.map'",
        "emptybox pack dist -o web.tar --json",
    )
)
@click.argument("source", metavar="PATH", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The archive: .tar, .tar.zst, .tar.gz or .tar.bz2 (default: PATH's name and .tar, here).",
)
@click.option(
    "--exclude",
    metavar="PATTERN",
    multiple=True,
    help="Leave out what fits, with all in it; without a slash a name at any depth, else a whole path.",
)
@click.option(
    "--root",
    is_flag=True,
    help="PATH is a system's root, as debootstrap makes one: absolute links lead from there; "
    "set-id bits and devices are left out.",
)
@options.signs
@options.as_json
def command(
    source: Path,
    output: Path | None,
    exclude: tuple[str, ...],
    root: bool,
    key: Path | None,
    password: Path | None,
    as_json: bool,
) -> int:
    """Pack what is in the directory PATH, or the one file PATH, and print the archive's sha256.

    The same names and contents give the same bytes, whatever the machine, its clock, users, permissions
    (but for "may be executed") or locale, for .tar and .tar.bz2; with .tar.zst and .tar.gz the version of
    the compressor has a say. Beside the archive lies FILE.sha256, as sha256sum writes it,
    and with --sign-key its signature.
    """
    from agent.publish.pack import pack
    from agent.publish.progress import telling
    from agent.publish.sidecars import sidecars, write_beside
    from agent.publish.trouble import Trouble

    target = output or Path(f"{source.resolve().name or 'root'}.tar")
    try:
        with telling(f"packing {words.clean(source)}") as tell:
            packed = pack(source, target, exclude, tell, root=root)
        contents = sidecars(target, target.name, packed.sha256, options.signing(key, password))
        written = write_beside(target, contents)
    except Trouble as trouble:
        click.echo(f"Error: {words.clean(trouble)}", err=True)
        return FAILED
    if as_json:
        words.print_json(
            {**asdict(packed), "path": str(packed.path), "beside": [str(path) for path in written.values()]}
        )
        return OK
    click.echo(f"{words.clean(target)}  {words.size(packed.size)}, {packed.entries} entries", err=True)
    if packed.depends_on:
        click.echo(f"another version of {packed.depends_on} may make other bytes of the same", err=True)
    click.echo(f"sha256:{packed.sha256}")
    return OK
