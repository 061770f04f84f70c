"""`emptybox publish`: from a build to a pushed state, the one command a CI job needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli import options, words
from agent.cli.exit_codes import FAILED, NOT_NOW, OK

if TYPE_CHECKING:
    from agent.publish.repository import Pushed
    from agent.publish.sending import Job, Ready, Sent

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    epilog=options.example(
        "emptybox publish dist --to https://releases.example/web/ --app web --version 1.4.0",
        "emptybox publish dist --to s3://releases/web/web-1.4.0.tar.zst --app web --version 1.4.0 \\",
        "    --state https://git.example/ops/state.git --credentials-file ci-logins",
        "emptybox publish base app --to oci://registry.example/legacy --version 1.4.0",
    )
)
@click.argument(
    "sources", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)
)
@click.option(
    "--to", "target", metavar="URL", required=True, help="http(s)://, s3://, oci://, file:// or a path."
)
@click.option("--app", metavar="NAME", default="", help="The app in the state; names the file below URL/.")
@click.option("--version", metavar="VERSION", default="", help="Its version; the tag of an image.")
@click.option("--platform", metavar="OS-ARCH", default="", help="Whose it is, like linux-arm64.")
@click.option("--exclude", metavar="PATTERN", multiple=True, help="What to leave out, as in emptybox pack.")
@click.option("--replace", is_flag=True, help="Replace what is there with other bytes under that name.")
@click.option("--url", metavar="URL", default="", help="Where agents fetch it, when that is not --to.")
@click.option(
    "--state", metavar="URL", default="", help="State repository to write the release into, and push."
)
@click.option("--branch", metavar="NAME", default="", help="Its branch (default: the remote's HEAD).")
@click.option("--path", metavar="PATH", default="", help="State file or directory in it, as in emptybox run.")
@click.option(
    "-m", "--message", metavar="TEXT", default="", help='Message of the commit (default: "APP VERSION").'
)
@click.option(
    "--credentials-file", "credentials", metavar="FILE", type=_FILE, envvar="EMPTYBOX_CREDENTIALS_FILE",
    help="Logins for --to by http(s) and --state, a line each: https://USER:PASSWORD@HOST.",
)  # fmt: skip
@click.option(
    "--s3-endpoint", metavar="URL", default="", envvar="EMPTYBOX_S3_ENDPOINT", help="As in emptybox run."
)
@click.option(
    "--s3-region", metavar="NAME", default="", envvar="EMPTYBOX_S3_REGION", help="As in emptybox run."
)
@click.option(
    "--s3-credentials-file", "s3_credentials", metavar="FILE", type=_FILE,
    envvar="EMPTYBOX_S3_CREDENTIALS_FILE",
    help="As in emptybox run (default: AWS_ACCESS_KEY_ID and so on, or the machine's identity).",
)  # fmt: skip
@click.option(
    "--registry-auth-file", "registry_auth", metavar="FILE", type=_FILE, envvar="EMPTYBOX_REGISTRY_AUTH_FILE",
    help="Logins for registries (default: where docker login keeps them).",
)  # fmt: skip
@click.option(
    "--insecure-registry", "insecure", metavar="HOST[:PORT]", multiple=True,
    envvar="EMPTYBOX_INSECURE_REGISTRY",
    help="Registry that is spoken to in plain http.",
)  # fmt: skip
@options.signs
@options.as_json
def command(as_json: bool, url: str, state: str, branch: str, path: str, message: str, **given: Any) -> int:
    """Bring what was built to where agents fetch it and, with --state, tell them by a push.

    A directory PATH is packed as by emptybox pack, a file is taken as it is; several are the layers of an
    image, the lowest first. Then the app's version, URL and checksum are set in the state file, whose
    comments and layout stay, and pushed with the git program as it is set up here. Run again it does
    nothing twice; another file of the same name is never replaced unasked. Needs no agent.

    Exit codes: 0 done, 1 refused or failed, 4 a server does not answer, try later.
    """
    from agent.kit.mask import secrets
    from agent.publish.progress import telling
    from agent.publish.sending import prepared
    from agent.publish.trouble import Trouble

    if state and not (given["app"] and given["version"]):
        raise click.UsageError("--state needs --app and --version")
    sent: list[Sent] = []
    pushed = None
    try:
        with prepared(_job(given), telling) as ready:

            def send() -> None:
                sent.append(ready.send())
                if not as_json:
                    _tell_sent(sent[0])

            if state:
                pushed = _push(ready, send, url, state, branch, path, message, given)
            else:
                send()
    except Trouble as trouble:
        click.echo(f"Error: {words.clean(secrets.text(str(trouble)))}", err=True)
        return NOT_NOW if trouble.passing else FAILED
    if as_json:
        words.print_json({**asdict(sent[0]), "state": asdict(pushed) if pushed else None})
    elif pushed:
        _tell_pushed(pushed, given["app"], given["version"])
    return OK


def _job(given: dict[str, Any]) -> Job:
    from agent.artifact.s3 import S3Access
    from agent.publish.sending import Job

    return Job(
        sources=given["sources"],
        target=given["target"],
        name=given["app"],
        version=given["version"],
        platform=given["platform"],
        exclude=given["exclude"],
        replace=given["replace"],
        signing=options.signing(given["key"], given["password"]),
        credentials=given["credentials"],
        s3=S3Access(
            endpoint=given["s3_endpoint"], region=given["s3_region"], credentials=given["s3_credentials"]
        ),
        registry_auth=given["registry_auth"] or _docker_logins(),
        insecure=given["insecure"],
    )


def _docker_logins() -> Path | None:
    """Where docker login, or podman's, has left its logins."""
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    places = [os.environ.get("REGISTRY_AUTH_FILE") or "", str(docker)]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def _push(
    ready: Ready,
    send: Callable[[], None],
    url: str,
    state: str,
    branch: str,
    path: str,
    message: str,
    given: dict[str, Any],
) -> Pushed:
    """Send, as soon as the state is known to take it, and push."""
    from agent.publish.repository import StateRepository
    from agent.publish.state import Release

    app, version = given["app"], given["version"]
    release = Release(app, version, url or ready.url, ready.sha256, given["platform"])
    text = f"{message or f'{app} {version}'}\n\n{release.url}\nsha256:{ready.sha256}\n"
    return StateRepository(state, branch, path, given["credentials"]).push(release, text, send)


def _tell_sent(sent: Sent) -> None:
    how = f"{words.size(sent.sent)} sent" if sent.sent else "it was there already"
    click.echo(f"{words.clean(sent.url)}  {how}", err=True)
    if sent.depends_on:
        click.echo(f"another version of {sent.depends_on} may make other bytes of the same", err=True)
    click.echo(f"sha256:{sent.sha256}")


def _tell_pushed(pushed: Pushed, app: str, version: str) -> None:
    if not pushed.changes:
        click.echo(f"the state says {app} {version} already, at {pushed.commit[:10]}", err=True)
    for change in pushed.changes:
        click.echo(words.clean(f"{change.file}: {change.key}: {change.before} -> {change.after}"), err=True)
    if pushed.changes:
        click.echo(f"pushed {pushed.commit[:10]} to {words.clean(pushed.branch)}", err=True)
