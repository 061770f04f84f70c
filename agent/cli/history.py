"""`emptybox history`: past runs, newest first."""

from __future__ import annotations

from collections.abc import Iterator

import click

from agent.cli import options, words
from agent.cli.client import Agent
from agent.cli.words import Json, clean, dim


@click.command(epilog=options.example("emptybox history", "emptybox history web --limit 5 --steps"))
@click.argument("app", default="", metavar="[APP]")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Runs to show.")
@click.option("--steps", is_flag=True, help="Show the steps of each run, too.")
@options.as_json
@options.agent
def command(agent: Agent, app: str, limit: int, steps: bool, as_json: bool) -> None:
    """Show past runs, newest first."""
    history = agent.get("/history", app=app, limit=limit)
    if as_json:
        words.print_json(history)
        return
    runs = history.get("runs") or []
    for run in runs:
        for line in _run(run, steps=steps):
            click.echo(line)
    if not runs:
        click.echo(f"no runs of {app} yet" if app else "no runs yet")


def _run(run: Json, *, steps: bool) -> Iterator[str]:
    heading = (
        words.local(run.get("started")),
        clean(run.get("app", "")).ljust(14),
        clean(run.get("version", "")).ljust(10),
        dim(words.commit(run.get("commit"))),
        words.word(run.get("result", ""), 12),
        words.seconds(run.get("seconds")).rjust(9),
        clean(run.get("reason") or ""),
    )
    yield "  ".join(heading).rstrip()
    if steps:
        for step in run.get("steps") or []:
            undone = " undone" if step.get("undone") else ""
            took = words.seconds(step.get("seconds")) if step.get("attempts") else ""
            text = f"{clean(step.get('name', '')).ljust(14)} {words.word(step.get('result', ''), 10)}{undone}"
            yield f"    {text} {took}".rstrip()
    if failure := run.get("failure"):
        lines = words.failure_lines(failure, 10 if steps else 0)
        yield from (f"    {line}" for line in lines)
