"""`emptybox plan`: what a sync would do; nothing is done."""

from __future__ import annotations

from collections.abc import Iterator

import click

from agent.cli import options, words
from agent.cli.client import Agent
from agent.cli.screen import busy
from agent.cli.words import Json, clean, dim

_COLOURS = {"install": "cyan", "update": "cyan", "remove": "yellow", "fail": "red", "none": "bright_black"}


@click.command(
    epilog=options.example("emptybox plan", "emptybox plan next", "emptybox plan 3f2a9c81d0 --json")
)
@click.argument("ref", default="", metavar="[REF]")
@options.as_json
@options.agent
def command(agent: Agent, ref: str, as_json: bool) -> None:
    """Show what a sync of REF (default: the followed one) would do, each step with its reason.

    Nothing is done. REF is a branch, a tag or a commit of the state repository: its full id, or the
    beginning of one that was looked at before, as emptybox history shows it. Secrets in rendered files
    are masked.
    """
    with busy("the agent asks the Git server ..."):
        plan = agent.get("/plan", ref=ref)
    if as_json:
        words.print_json(plan)
        return
    click.echo(f"{clean(ref or 'followed ref')} at {words.commit(plan.get('commit'))}")
    for warning in plan.get("warnings") or []:
        click.echo(click.style(f"warning: {clean(warning)}", fg="yellow"))
    if paused := plan.get("paused"):
        click.echo(click.style(f"updates are paused: {clean(paused)}; after that:", fg="yellow"))
    for name, app in (plan.get("apps") or {}).items():
        for line in _app(name, app):
            click.echo(line)


def _app(name: str, app: Json) -> Iterator[str]:
    """One app: what would be done and why, the steps, and how its rendered files would change."""
    action = clean(app.get("action") or "")
    heading = (
        click.style(clean(name), bold=True),
        click.style(action, fg=_COLOURS.get(action)),
        clean(app.get("version") or ""),
        clean(app.get("reason") or ""),
    )
    yield "\n" + "  ".join(part for part in heading if part)
    for step in app.get("steps") or []:
        needs = ", ".join(clean(need) for need in step.get("needs") or [])
        after = dim(f"  after {needs}") if needs else ""
        yield f"  {clean(step.get('name', '')).ljust(14)} {clean(step.get('reason') or '')}{after}".rstrip()
    for key in ("rollback", "after_probation"):
        if text := app.get(key):
            yield f"  {key.replace('_', ' ')}: {clean(text)}"
    for target, lines in (app.get("files") or {}).items():
        yield f"  {clean(target)}"
        yield from (f"    {_coloured(clean(line))}" for line in lines)


def _coloured(line: str) -> str:
    """A line of a unified diff."""
    colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
    return click.style(line, fg=colour)
