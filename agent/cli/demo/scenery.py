"""The texts of the demo: its state repository, and how to go on by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

VERSIONS = {
    "v1": ("good", "good"),
    "v2": ("good", "good"),
    "v3": ("sickens", "broken: it passes its first probe, and turns unhealthy a second later"),
    "v4": ("good", "good, and never deployed by the demo itself"),
}
PROBATION = 3.0  # seconds; v3 turns bad after one

_STATE = """\
# What this host is to run. Pushing a change of this file deploys it; nothing else does.
schema: 1
apps:
  web:
    version: {version}
    artifact:
      url: {artifacts}/web-{{{{ version }}}}.tar.gz
      checksum: sha256:{artifacts}/SHA256SUMS
      strip: 1
    run:
      command: {command}
    listen: {{http: {{port: {port}, address: 127.0.0.1}}}}
    socket: fd   # it takes its socket over: the old version serves until the new one is healthy
    health: {{http: /healthz, interval: 100ms, deadline: 10s, probation: {probation:g}s}}
"""
EMPTY = "# What this host is to run: nothing yet.\nschema: 1\napps: {}\n"

_README = """\
# The demo's state repository

`state.yaml` says what the agent is to run. These versions of the app are on the artifact server already:

{versions}

Change the line `version:` in state.yaml, commit, push; then look at {status}
"""

_GUIDE = """\
It stays up. Now it is your turn, in another terminal:

  git clone {repository} {clone} && cd {clone}
  sed -i 's/version: .*/version: v4/' state.yaml        # or v1, v2; v3 is the broken one
  git -c user.name=me -c user.email=me@localhost commit -am v4 && git push

  curl {app}/          # the app itself
  curl {admin}/status    # everything as JSON; -H 'Accept: text/plain' for reading
  {emptybox} status --socket {socket}
  {emptybox} rollback web --socket {socket}

  The dashboard, for a browser: {admin}/

Ctrl-C here ends it and removes everything{keep}.
"""


def state(version: str, artifacts: str, port: int) -> str:
    """state.yaml that wants a version. `artifacts` is the artifact server's URL, `port` the app's."""
    command = json.dumps([sys.executable, "-S", "bin/web"])
    return _STATE.format(
        version=version, artifacts=artifacts, command=command, port=port, probation=PROBATION
    )


def readme(status: str) -> str:
    """README.md of the state repository."""
    versions = "\n".join(f"- `{version}`: {what}" for version, (_, what) in VERSIONS.items())
    return _README.format(versions=versions, status=status)


def guide(*, repository: str, app: str, admin: str, socket: Path, directory: Path, kept: bool) -> str:
    """How to go on by hand. URLs without a slash at the end; `directory` is the demo's."""
    program = Path(sys.argv[0])
    return _GUIDE.format(
        repository=repository,
        clone=directory / "yours",
        app=app,
        admin=admin,
        socket=socket,
        emptybox=program if program.name == "emptybox" else "emptybox",
        keep=f", except {directory}" if kept else "",
    )
