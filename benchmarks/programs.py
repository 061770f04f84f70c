"""The servers that are swapped and measured, as artifacts, and how each is started in each socket mode.

They are what people run: nobody wrote them for this agent. Sources are in `benchmarks/servers`; `@PORT@`
and `@VERSION@` in them, and `{port}` and `{python}` in commands, are filled in.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = Path(__file__).with_name("servers")
SYSTEM = "/usr/sbin:/usr/local/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A server.

    `commands` are by socket mode; without "fd" it cannot be handed a socket. What binds by itself is "own",
    and stands for adopt, and for relay too if there is no other: then $PORT is what has to be bound.
    `files` are names in the artifact and where their text comes from. `needs` are programs and modules
    without which it cannot run here. `stop` is the signal of its graceful stop, `graceful` whether it has
    one; `keep_alive` whether it keeps connections.
    """

    name: str
    commands: Mapping[str, Sequence[str]]
    files: Mapping[str, str]
    needs: Sequence[str] = ()
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    stop: str = "TERM"
    graceful: bool = True
    keep_alive: bool = True

    def missing(self) -> str:
        """What it needs and this machine has not; "" when all is there."""
        return ", ".join(need for need in self.needs if not _has(need))

    def modes(self) -> list[str]:
        """The socket modes it can be swapped in."""
        return [mode for mode in ("fd", "adopt", "relay") if self._kind(mode) in self.commands]

    def _kind(self, mode: str) -> str:
        return "own" if mode == "adopt" or (mode == "relay" and mode not in self.commands) else mode

    def command(self, mode: str, port: int) -> list[str]:
        """What starts it."""
        return [
            part.format(port=port, python=sys.executable, nginx=found("nginx"), node=found("node"))
            for part in self.commands[self._kind(mode)]
        ]

    def variables(self, mode: str) -> dict[str, str]:
        """What it wants in its environment besides."""
        return dict(self.environment.get(self._kind(mode), {}))

    def contents(self, version: str, port: int) -> dict[str, bytes]:
        """Its files."""
        return {name: _content(source, version, port) for name, source in self.files.items()}

    def archive(self, version: str, port: int) -> bytes:
        """Its files as tar.gz; every byte the same each time."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in self.contents(version, port).items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o755
                tar.addfile(info, io.BytesIO(data))
        return gzip.compress(buffer.getvalue(), 1, mtime=0)


def _content(source: str, version: str, port: int) -> bytes:
    if source.endswith(".c"):
        return _compiled(source)
    text = source if source.startswith("@") else (SOURCES / source).read_text()
    return text.replace("@PORT@", str(port)).replace("@VERSION@", version).encode()


@functools.cache
def _compiled(source: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "program"
        subprocess.run(["gcc", "-static", "-O2", "-o", program, SOURCES / source], check=True)
        return program.read_bytes()


def found(program: str) -> str:
    """Where a program is; "" when it is nowhere."""
    return shutil.which(program) or shutil.which(program, path=SYSTEM) or ""


def _has(need: str) -> bool:
    if need.startswith("module "):
        return importlib.util.find_spec(need.removeprefix("module ")) is not None
    return bool(found(need))


_NGINX = ("{nginx}", "-p", ".", "-e", "stderr", "-c")
_NGINX_RELAYED = 'sed "s/:{port};/:$PORT;/" nginx.conf > own.conf && exec "$0" "$@"'
_GUNICORN = ("{python}", "-m", "gunicorn", "wsgi:app", "--workers", "2", "--threads", "4")
_UVICORN = ("{python}", "-m", "uvicorn", "asgi:app", "--no-access-log", "--log-level", "warning")
_HTTP_SERVER = ("{python}", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "www")

PROGRAMS: Mapping[str, Program] = {
    program.name: program
    for program in (
        Program(
            name="nginx",
            commands={
                "fd": (*_NGINX, "nginx.conf"),
                "own": (*_NGINX, "nginx.conf"),
                "relay": ("sh", "-c", _NGINX_RELAYED, *_NGINX, "own.conf"),
            },
            files={"nginx.conf": "nginx.conf"},
            needs=["nginx"],
            environment={"fd": {"NGINX": "3;"}},
            stop="QUIT",
        ),
        Program(
            name="node",
            commands={"fd": ("{node}", "server.js"), "own": ("{node}", "server.js")},
            files={"server.js": "server.js"},
            needs=["node"],
        ),
        Program(
            name="gunicorn",
            commands={
                "fd": _GUNICORN,
                "own": (*_GUNICORN, "-b", "127.0.0.1:{port}"),
                "relay": _GUNICORN,  # it binds $PORT when nothing is said
            },
            files={"wsgi.py": "wsgi.py"},
            needs=["module gunicorn"],
        ),
        Program(
            name="uvicorn",
            commands={
                "fd": (*_UVICORN, "--fd", "3"),
                "own": (*_UVICORN, "--port", "{port}"),
                "relay": ("sh", "-c", 'exec "$0" "$@" --port "$PORT"', *_UVICORN),
            },
            files={"asgi.py": "asgi.py"},
            needs=["module uvicorn"],
        ),
        Program(
            name="static",
            commands={"fd": ("./server",), "own": ("./server",)},
            files={"server": "server.c"},
            needs=["gcc"],
        ),
        Program(
            name="http.server",
            commands={
                "own": (*_HTTP_SERVER, "{port}"),
                "relay": ("sh", "-c", 'exec "$0" "$@" "$PORT"', *_HTTP_SERVER),
            },
            files={"www/index.html": "@VERSION@\n"},
            graceful=False,
            keep_alive=False,
        ),
    )
}


def by_hand(program: Program, directory: Path, version: str, port: int) -> subprocess.Popen[bytes]:
    """Start it without any agent, on a port of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in program.contents(version, port).items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory),
        "PORT": str(port),
        "EMPTYBOX_VERSION": version,
        **program.variables("own"),
    }
    return subprocess.Popen(
        program.command("own", port),
        cwd=directory,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
