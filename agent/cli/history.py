"""`emptybox history`: past runs, and looks at the state that failed before any run, newest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import click

from agent.cli import options, words
from agent.cli.client import Agent
from agent.cli.words import Json, clean, dim


@click.command(epilog=options.example("emptybox history", "emptybox history web --limit 5 --steps"))
@click.argument("app", default="", metavar="[APP]", shell_complete=options.apps)
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Runs to show.")
@click.option("--steps", is_flag=True, help="Show the steps of each run, too.")
@options.as_json
@options.agent
def command(agent: Agent, app: str, limit: int, steps: bool, as_json: bool) -> None:
    """Show past runs, and commands of `emptybox exec`, newest first.

    Without APP also syncs that failed before any run: the repository was away, or the state had mistakes.
    """
    history = agent.get("/history", app=app, limit=limit)
    if as_json:
        words.print_json(history)
        return
    runs = history.get("runs") or []
    told = [(run.get("started") or "", list(_run(run, steps=steps))) for run in runs]
    told += [
        (group[-1].get("started") or "", list(_syncs(group))) for group in _alike(history.get("syncs") or [])
    ]
    told += [(one.get("started") or "", [_exec(one)]) for one in history.get("execs") or []]
    for _, lines in sorted(told, key=lambda one: one[0], reverse=True)[:limit]:
        for line in lines:
            click.echo(line)
    if not told:
        click.echo(f"no runs of {app} yet" if app else "no runs yet")


def _alike(syncs: Sequence[Json]) -> list[list[Json]]:
    """Failed syncs, newest first, those in a row with the same reason and commit together."""

    def why(sync: Json) -> tuple[object, object]:
        return sync.get("commit"), (sync.get("failure") or {}).get("reason")

    return [list(group) for _, group in groupby(syncs, why)]


def _syncs(group: Sequence[Json]) -> Iterator[str]:
    newest, oldest = group[0], group[-1]
    heading = (
        words.local(oldest.get("started")),
        "(no run)".ljust(14),
        "".ljust(10),
        dim(words.commit(newest.get("commit")).ljust(10)),
        words.word(newest.get("result", ""), 12),
        words.seconds(newest.get("seconds")).rjust(9),
        f"{len(group)} times, last {words.local(newest.get('started'))}" if len(group) > 1 else "",
    )
    yield "  ".join(heading).rstrip()
    lines = words.failure_lines(newest.get("failure") or {}, 10)
    yield from (f"    {line}" for line in lines)


def _exec(one: Json) -> str:
    heading = (
        words.local(one.get("started")),
        clean(one.get("app", "")).ljust(14),
        "".ljust(10),
        "".ljust(10),
        "exec".ljust(12),
        words.seconds(one.get("seconds")).rjust(9),
        clean(f"{one.get('program')} by {one.get('by')}: {one.get('result')}"),
    )
    return "  ".join(heading).rstrip()


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
