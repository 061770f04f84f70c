"""`emptybox demo`: the product shown in under a minute, on real parts, without a question asked."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from agent.cli import options, words
from agent.cli.exit_codes import FAILED, INTERRUPTED, OK

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command(epilog=options.example("emptybox demo", "emptybox demo --stay"))
@click.option("--stay", is_flag=True, help="Leave it up afterwards, to push to by hand, until Ctrl-C.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Work in this new or empty directory, and leave it there.",
)
@options.as_json
def command(*, stay: bool, keep: Path | None, as_json: bool) -> int:
    """Show a push becoming a running version: v1, v2 under load, and a broken v3 taken back.

    Starts a Git server, an artifact server, the agent and a load of clients on free ports of 127.0.0.1 in a
    temporary directory; needs the git program and no network. Exits 0 only if all of it really happened,
    and leaves nothing behind.
    """
    if shutil.which("git") is None:
        raise click.ClickException("the demo needs the git program (the agent itself does not)")
    if stay and as_json:
        raise click.UsageError("--json prints when all is over, which with --stay it never is")
    return asyncio.run(_run(keep, stay=stay, as_json=as_json))


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="emptybox-demo-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise click.UsageError(f"--keep: {keep} is not empty")
    yield keep.absolute()


async def _run(keep: Path | None, *, stay: bool, as_json: bool) -> int:
    """Run the show until it is over or a signal ends it; the exit code."""
    from agent.cli.demo.show import show
    from agent.cli.demo.timeline import Timeline

    timeline = Timeline(quiet=as_json)
    loop, story = asyncio.get_running_loop(), asyncio.current_task()
    assert story is not None
    heard: list[int] = []

    def end(number: int) -> None:
        heard.append(number)
        if len(heard) == 1:  # each part of the way out has its deadline: pressing again helps nobody
            story.cancel()

    for number in ENDS:
        loop.add_signal_handler(number, end, number)
    try:
        with _directory(keep) as directory:
            told = await show(directory, timeline, stay=stay, kept=keep is not None)
    except asyncio.CancelledError:
        if not heard:
            raise
        timeline.line("ended, and everything removed" if keep is None else f"ended; {keep} is left")
        return OK if stay else INTERRUPTED
    except Exception as error:
        reasons = _reasons(error)
        if not reasons:
            raise
        if as_json:
            words.print_json({"ok": False, "error": "\n".join(reasons)})
        else:
            click.echo(words.bad("the demo failed: ") + words.clean("\n".join(reasons)), err=True)
        return FAILED
    if as_json:
        words.print_json(told)
    return OK if told["ok"] else FAILED


def _reasons(error: BaseException) -> list[str]:
    """Why the demo failed, out of groups; [] when that is a defect, whose trace is worth more."""
    from agent.cli.demo.agent_process import AgentEnded
    from agent.cli.demo.show import DemoFailed

    if isinstance(error, BaseExceptionGroup):
        inner = [_reasons(each) for each in error.exceptions]
        return [reason for reasons in inner for reason in reasons] if all(inner) else []
    if isinstance(error, TimeoutError):
        return [str(error) or "the agent does not begin to answer"]
    return [str(error)] if isinstance(error, DemoFailed | AgentEnded | OSError | RuntimeError) else []
