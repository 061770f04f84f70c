"""`emptybox ps`: what runs here, and what it uses."""

from __future__ import annotations

import click

from agent.cli import options, words
from agent.cli.client import Agent
from agent.cli.words import Json, clean, dim

HEADING = ("APP", "#", "VERSION", "PID", "STATE", "UP", "PSS", "RSS", "CPU", "%CPU", "RESTARTS")
RIGHT = ("PID", "UP", "PSS", "RSS", "CPU", "%CPU", "RESTARTS")


@click.command(epilog=options.example("emptybox ps", "emptybox ps --json"))
@options.as_json
@options.agent
def command(agent: Agent, as_json: bool) -> None:
    """Show the processes of apps, and emptybox's own: what they are for and what they use.

    PSS is memory with shared pages shared out fairly, RSS counts them whole ("-": not to be looked into).
    A program counts with all it started. CPU is processor time since its start, %CPU its share of one
    core since then.
    """
    answer = agent.get("/ps")
    if as_json:
        words.print_json(answer)
        return
    table = [HEADING, *(_row(row) for row in answer.get("processes") or [])]
    widths = [max(len(row[n]) for row in table) for n in range(len(HEADING))]
    for number, row in enumerate(table):
        cells = [
            cell.rjust(width) if name in RIGHT else cell.ljust(width)
            for name, cell, width in zip(HEADING, row, widths, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        click.echo(dim(line) if number == 0 else line)


def _row(row: Json) -> tuple[str, ...]:
    many = row.get("processes") or 0
    return (
        clean(row.get("app") or f"({row.get('name')})"),
        str(row["instance"]) if row.get("instance") is not None else "-",
        clean(row.get("version") or "-"),
        str(row.get("pid") or "-") + (f" (+{many - 1})" if many > 1 else ""),
        clean(row.get("state") or ""),
        words.seconds(row.get("uptime_seconds")) or "-",
        words.size(row["pss"]) if row.get("pss") is not None else "-",
        words.size(row["rss"]) if row.get("rss") is not None else "-",
        words.seconds(row.get("cpu_seconds")) or "-",
        f"{row['cpu_percent']:.1f}" if row.get("cpu_percent") is not None else "-",
        str(row.get("restarts") or 0),
    )
