"""`emptybox status`: what runs, what is wanted, what happens now, what went wrong."""

from __future__ import annotations

from collections.abc import Iterator

import click

from agent.cli import options, words
from agent.cli.client import Agent
from agent.cli.exit_codes import USAGE
from agent.cli.words import Json, clean, dim
from agent.status.conditions import is_well

BAR = 24  # characters


@click.command(epilog=options.example("emptybox status", "emptybox status web --json"))
@click.argument("apps", nargs=-1, metavar="[APP]...", shell_complete=options.apps)
@options.as_json
@options.agent
def command(agent: Agent, apps: tuple[str, ...], as_json: bool) -> None:
    """Show what runs, what is wanted, what happens now and what went wrong."""
    status = agent.get("/status")
    known = status.get("apps") or {}
    if unknown := [name for name in apps if name not in known]:
        there = f"there are: {', '.join(map(clean, known))}" if known else "there is none yet"
        click.echo(f"Error: no app is named {', '.join(unknown)}; {there}", err=True)
        raise click.exceptions.Exit(USAGE)
    chosen = {name: app for name, app in known.items() if not apps or name in apps}
    if as_json:
        words.print_json({**status, "apps": chosen})
        return
    for line in _agent(status):
        click.echo(line)
    for name, app in chosen.items():
        click.echo()
        for line in _app(name, app):
            click.echo(line)
    if not known:
        click.echo("\nno apps yet")


def _agent(status: Json) -> Iterator[str]:
    agent, source = status.get("agent") or {}, status.get("source") or {}
    labels = ", ".join(f"{k}={v}" for k, v in (agent.get("labels") or {}).items())
    up = words.seconds(agent.get("uptime_seconds"))
    host = clean(agent.get("host", "")) + (f" ({clean(labels)})" if labels else "")
    yield _line("agent", f"emptybox {clean(agent.get('version', ''))} on {host}, up {up}")
    ref = f"{clean(source.get('ref', ''))} {dim(words.commit(source.get('commit')))}".strip()
    yield _line("source", f"{clean(source.get('repo', ''))} {ref}")
    last = source.get("last_sync")
    for sync in source.get("running") or []:
        yield _line("sync", f"{words.word('updating')} for {words.seconds(sync.get('seconds'))}")
    if last:
        yield _line(
            "sync", f"{words.word(last['result'])} {words.ago(last.get('at'))} {_next_poll(source)}".rstrip()
        )
        if last.get("failure") and not _told_by_an_app(status, last["failure"]):
            yield from (_line("", text) for text in words.failure_lines(last["failure"]))
    if paused := status.get("paused"):
        by = f" by {clean(paused['by'])}" if paused.get("by") else ""
        message = click.style(clean(paused.get("message", "")), fg="yellow")
        yield _line("paused", f"{message}{by} {words.ago(paused.get('since'))}")
    yield from _conditions(status.get("conditions") or [])


def _told_by_an_app(status: Json, failure: Json) -> bool:
    """Whether an app's own failure says the same, which is shown with the app."""
    told = [app.get("last_failure") or {} for app in (status.get("apps") or {}).values()]
    return any(
        all(one.get(key) == failure.get(key) for key in ("reason", "message", "where")) for one in told
    )


def _next_poll(source: Json) -> str:
    at = words.epoch(source.get("next_poll"))
    return dim(f"(next look {words.local(source['next_poll'])[11:]})") if at else ""


def _app(name: str, app: Json) -> Iterator[str]:
    current, good, wanted = (app.get(key) or {} for key in ("current", "good", "wanted"))
    yield f"{click.style(clean(name), bold=True)}  {words.word(app.get('state', ''))}{_gate(app)}"
    if current:
        since = f"since {words.local(current.get('since'))} ({words.ago(current.get('since'))})"
        yield _line("current", f"{_pair(current)} {since}")
    if good and good.get("spec") != current.get("spec"):
        yield _line("good", _pair(good))
    if wanted and wanted.get("spec") != current.get("spec"):
        yield _line("wanted", f"{_pair(wanted)} {clean(wanted.get('reason') or '')}".rstrip())
    yield from _child(app.get("child") or {})
    yield from _job(app.get("job") or {})
    if run := app.get("run"):
        yield from _run(run)
    yield from _conditions(app.get("conditions") or [])
    if failure := app.get("last_failure"):
        yield _line("failed", words.ago(failure.get("at")))
        yield from (_line("", text) for text in words.failure_lines(failure))


def _gate(app: Json) -> str:
    gate = app.get("gate")
    if share := app.get("canary_percent"):
        return f"  {dim(f'{share} % of new connections to the new version')}"
    return f"  {dim(f'port {clean(gate)}')}" if gate and gate != "open" else ""


def _pair(pair: Json) -> str:
    signer = clean(pair.get("signer") or "")
    parts = [words.commit(pair.get("commit")), words.digest(pair.get("digest"))]
    parts.append(f"signed by {signer}" if signer else "")
    artifact = clean(pair.get("artifact_signer") or "")
    parts.append(f"artifact signed by {artifact}" if artifact else "")
    told = ", ".join(part for part in parts if part)
    return clean(pair.get("version") or "?") + (dim(f" ({told})") if told else "")


def _child(child: Json) -> Iterator[str]:
    found = child.get("instances") or []
    if (child.get("instances_wanted") or 0) > 1 or any(each.get("status") for each in found):
        for each in found:
            told = f"{words.word(each.get('state'), 9)} {clean(each.get('version') or '')}"
            yield _line(
                f"#{each.get('number')}",
                f"{told} {dim('pid ' + str(each.get('pid')))} {clean(each.get('status') or '')}",
            )
    if waits := child.get("restarting"):
        yield _line("restart", f"{clean(waits.get('reason'))}, next at {clean(waits.get('due'))}")
    if child.get("restarts"):
        last = child.get("last_exit") or {}
        how = f"signal {last['signal']}" if last.get("signal") else f"code {last.get('code')}"
        yield _line("restarts", f"{child['restarts']}, last ended with {how} {words.ago(last.get('at'))}")


def _job(job: Json) -> Iterator[str]:
    if job.get("next"):
        yield _line("next", f"{words.local(job['next'])} {dim(clean(job.get('schedule') or ''))}")
    for each in job.get("running") or []:
        told = f"{clean(each.get('id', ''))} ({clean(each.get('cause', ''))})"
        yield _line("running", f"{told} {dim('pid ' + str(each.get('pid')))} {words.ago(each.get('since'))}")
    if last := job.get("last"):
        code = f" with exit code {last['code']}" if last.get("code") else ""
        yield _line("job", f"{words.word(last.get('result', ''))}{code} {words.ago(last.get('ended'))}")


def _run(run: Json) -> Iterator[str]:
    yield _line("run", f"{clean(run.get('reason', ''))}, {words.seconds(run.get('seconds'))}")
    for step in run.get("steps") or []:
        state = step.get("state", "")
        text = f"{clean(step.get('name', '')).ljust(12)} {words.word(state, 10)}"
        if state not in ("pending", "skipped"):
            text += f" {words.seconds(step.get('seconds'))}"
        if state == "running" and step.get("progress"):
            text += f" {progress(step['progress'])}"
        if (step.get("attempt") or 0) > 1:
            text += f" attempt {step['attempt']}"
        yield _line("", text)


def progress(given: Json) -> str:
    """A bar, a share and an amount; without a known total the amount alone."""
    done, total, unit = given.get("done") or 0, given.get("total") or 0, given.get("unit") or "bytes"
    told = words.amount(done, total, unit)
    if not total:
        return told
    share = max(0.0, min(1.0, done / total))
    full = round(BAR * share)
    return f"[{'#' * full}{'.' * (BAR - full)}] {share:4.0%} {told}"


def _conditions(conditions: list[Json]) -> Iterator[str]:
    """Those that are not as they should be."""
    for condition in conditions:
        if is_well(condition.get("type", ""), condition.get("status", "")) is not False:
            continue
        kind, reason = clean(condition["type"]), clean(condition.get("reason") or "")
        text = f"{click.style(kind, fg='yellow')} {clean(condition['status'])}"
        message = clean(condition.get("message") or "")
        since = words.ago(condition.get("since"))
        told = ": ".join(part for part in (reason, message) if part)
        yield _line("condition", f"{text}, {told}" + (f" ({since})" if since else ""))


def _line(label: str, text: str) -> str:
    return f"  {dim(label.ljust(9))} {text}".rstrip()
