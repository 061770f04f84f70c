"""`emptybox plan`: what a sync would do; nothing is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from agent.cli import options, words
from agent.cli.client import Agent
from agent.cli.words import Json, clean, dim


@click.command(epilog=options.example("emptybox plan", "emptybox plan refs/heads/next"))
@click.argument("ref", default="", metavar="[REF]")
@options.as_json
@options.agent
def command(agent: Agent, ref: str, as_json: bool) -> None:
    """Show what a sync of REF (default: the followed one) would do, each step with its reason.

    Nothing is done. REF is a branch, a tag or a full commit of the state repository.
    """
    plan = agent.get("/plan", ref=ref)
    if as_json:
        words.print_json(plan)
        return
    click.echo(f"{clean(plan.get('ref') or ref)} {dim(words.commit(plan.get('commit')))}".strip())
    for warning in plan.get("warnings") or []:
        click.echo(click.style(f"warning: {clean(warning)}", fg="yellow"))
    for app in _apps(plan):
        for line in _app(app):
            click.echo(line)


def _apps(plan: Json) -> list[Json]:
    apps = plan.get("apps") or []
    if isinstance(apps, Mapping):
        return [{"app": name, **app} for name, app in apps.items()]
    return list(apps)


def _app(app: Json) -> Iterator[str]:
    steps = app.get("steps") or []
    name = click.style(clean(app.get("app") or app.get("name") or ""), bold=True)
    yield f"\n{name}  {clean(app.get('reason') or '')}"
    for step in steps:
        needs = ", ".join(clean(need) for need in step.get("needs") or [])
        after = dim(f"  after {needs}") if needs else ""
        yield f"  {clean(step.get('name', '')).ljust(14)} {clean(step.get('reason') or '')}{after}".rstrip()
    if not steps:
        yield dim("  nothing to do")
