"""A support bundle: what helps somebody else to help, in one tar.gz, with secrets masked.

The agent masks what it knows; what is read here passes the same registry, which is told the contents of
the secret files of the settings first. The file is for its owner alone (mode 0600).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import click

from agent.cli.client import Agent, Refused, Unreachable
from agent.config import ConfigError, as_rows, learn_secrets, load
from agent.kit.mask import secrets

LINES = 2000  # of what apps said, together
OUTPUT_MAX = 1 << 20  # bytes of each app's file, without an agent


def write(file: Path, agent: Agent, report: Mapping[str, Any]) -> None:
    """Make the bundle. Raises click.ClickException when it cannot be written."""
    entries = {"doctor.json": json.dumps(report, indent=2), "versions.txt": _versions()}
    entries |= dict(_settings())
    entries |= dict(_of_agent(agent) if report["findings"][0]["verdict"] == "ok" else _of_disk())
    with contextlib.suppress(OSError):
        entries["os-release"] = Path("/etc/os-release").read_text()
    try:
        file.unlink(missing_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as opened, tarfile.open(fileobj=opened, mode="w:gz") as tar:
            for name, text in sorted(entries.items()):
                data = secrets.text(text).encode(errors="replace")
                info = tarfile.TarInfo(f"emptybox-support/{name}")
                info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
                tar.addfile(info, io.BytesIO(data))
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror or error}") from None


def _settings() -> Iterator[tuple[str, str]]:
    """As this command sees them; contents of secret files are learned, to be masked, and never written."""
    try:
        settings = load([], os.environ, need_repo=False)
    except ConfigError as error:
        yield "settings.txt", "\n".join(error.problems)
        return
    learn_secrets(settings)
    yield "settings.txt", "".join(f"{name} = {value}\n" for name, value in as_rows(settings))


def _of_agent(agent: Agent) -> Iterator[tuple[str, str]]:
    asked: dict[str, Callable[[], str]] = {
        "status.json": lambda: json.dumps(agent.get("/status"), indent=2),
        "status.txt": lambda: agent.text("/status"),
        "history.json": lambda: json.dumps(agent.get("/history", limit=100), indent=2),
        "ps.json": lambda: json.dumps(agent.get("/ps"), indent=2),
        "metrics.txt": lambda: agent.text("/metrics"),
        "output.txt": lambda: agent.text(f"/logs?lines={LINES}&times=1"),
    }
    for name, ask in asked.items():
        try:
            yield name, ask()
        except (Unreachable, Refused) as error:
            yield f"{name}.missing", str(error.message)


def _of_disk() -> Iterator[tuple[str, str]]:
    """Without an agent: what apps said, from where it is kept."""
    try:
        data = load([], os.environ, need_repo=False).data
    except ConfigError:
        return
    for path in sorted(data.glob("apps/*/output.log")):
        with contextlib.suppress(OSError), path.open("rb") as opened:
            opened.seek(max(0, path.stat().st_size - OUTPUT_MAX))
            yield f"output-{path.parent.name}.txt", opened.read(OUTPUT_MAX).decode(errors="replace")


def _versions() -> str:
    names = sorted({f"{found.metadata['Name']} {found.version}" for found in distributions()})
    return "\n".join([platform.platform(), f"Python {platform.python_version()}", *names, ""])
