"""`emptybox doctor`: what may be wrong here, what is being waited for, and a bundle for whoever helps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from agent.cli import options, words
from agent.cli.client import Agent, Refused, Unreachable
from agent.cli.exit_codes import FAILED, OK
from agent.cli.screen import busy
from agent.cli.words import Json, clean, dim

PATIENCE = 3.0  # seconds for the first sign of life
_COLOURS = {"ok": "green", "warn": "yellow", "bad": "red", "unknown": "bright_black"}


@click.command(
    epilog=options.example(
        "emptybox doctor", "emptybox doctor --json", "emptybox doctor --bundle support.tar.gz"
    )
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a tar.gz for whoever helps: findings, status, history, the apps' last lines, settings. "
    "Secrets are masked; look through it all the same.",
)
@options.as_json
@options.agent
def command(agent: Agent, bundle: Path | None, as_json: bool) -> int:
    """Look for what may be wrong: kernel, permissions, disk, clock, access to Git and artifacts.

    A running agent looks itself, with its own rights and settings, and says what it waits for. Without one
    this command looks, with the settings in EMPTYBOX_ variables; of one that does not answer within 3 s it
    says how it is, and what its keeper still runs. Exits 1 when something does not work.
    """
    with busy("looking, also at what lies elsewhere ..."):
        report = examined(agent)
    if bundle is not None:
        from agent.cli.bundle import write

        write(bundle, agent, report)
    if as_json:
        words.print_json(report)
    else:
        for line in _told(report):
            click.echo(line)
        if bundle is not None:
            click.echo(f"\nwritten: {bundle}")
    return FAILED if any(f.get("verdict") == "bad" for f in report["findings"]) else OK


def examined(agent: Agent) -> dict[str, Any]:
    """What the agent finds; without one that answers, what can be found from here in a few seconds."""
    try:
        agent.alive(PATIENCE)
        report = agent.get("/doctor")
        finding = {"subject": "agent", "verdict": "ok", "told": f"answers at {agent.path}", "remedy": ""}
    except (Unreachable, Refused) as error:
        from agent.config import ConfigError, load
        from agent.doctor.examine import examine
        from agent.doctor.silence import silence

        told, _, remedy = str(error.message).partition("\n")
        finding = {"subject": "agent", "verdict": "bad", "told": told, "remedy": remedy}
        hangs = isinstance(error.__cause__, TimeoutError | BlockingIOError)
        seen = [found.as_json() for found in silence(agent.path.parent / "lock")] if hangs else []
        try:
            settings = load([], os.environ, need_repo=False)
        except ConfigError as problem:
            raise click.UsageError("\n".join(problem.problems)) from None
        report = dict(asyncio.run(examine(settings, elsewhere=not hangs)))
        return {**report, "findings": [*(seen or [finding]), *report["findings"]]}
    return {**report, "findings": [finding, *report["findings"]]}


def _told(report: Json) -> Iterator[str]:
    width = max(len(str(finding["subject"])) for finding in report["findings"])
    for finding in report["findings"]:
        verdict = clean(finding["verdict"])
        mark = click.style(verdict.ljust(7), fg=_COLOURS.get(verdict))
        yield f"{mark} {clean(finding['subject']).ljust(width)}  {clean(finding['told'])}"
        for line in clean(finding.get("remedy") or "").splitlines():
            yield f"{' ' * (9 + width)} {dim('->')} {line}"
    if "waiting" in report:
        yield ""
        yield "waiting for:" if report["waiting"] else "nothing is being waited for"
    for wait in report.get("waiting") or []:
        since = words.ago(wait.get("since"))
        whose = f"{clean(wait['app'])} " if wait.get("app") else ""
        yield f"  {whose}{clean(wait['what'])}{f', since {since}' if since else ''}: {clean(wait['why'])}"
        if wait.get("until"):
            yield f"    {dim('until')} {clean(wait['until'])}"
