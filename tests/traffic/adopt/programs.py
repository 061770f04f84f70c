"""Programs as people run them: none of them was written for this agent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.kit.sandbox import compiled, tool

SERVERS = Path(__file__).parents[3] / "benchmarks" / "servers"
NGINX = """
{daemon} pid {root}/pid; error_log stderr; worker_processes 2;
events {{ worker_connections 200; }}
http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
  uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
  server {{ {listen} location / {{ default_type text/plain; return 200 "{name}\\n"; }} }} }}
"""
NODE = "const name = process.env.EMPTYBOX_VERSION + '\\n', port = Number(process.env.PORT);\n"
NODE_PLAIN = NODE + "require('http').createServer((q, r) => r.end(name)).listen(port);"
NODE_CLUSTER = (
    NODE
    + """
const cluster = require('cluster');
if (cluster.isPrimary) { cluster.fork(); cluster.fork(); }
else require('http').createServer((q, r) => r.end(name)).listen(port);
"""
)


@dataclass(frozen=True)
class Program:
    """`command` makes what it needs in a directory, for a version and a port, and tells how it is started.

    `stop` is the signal of its graceful stop; without one its clients are waited for. Nor is it one to close
    what was accepted and has sent nothing yet, as uvicorn does.
    """

    name: str
    command: Callable[[Path, str, int], list[str]]
    stop: int = 15
    graceful: bool = True


def _static(root: Path, _name: str, _port: int) -> list[str]:
    return [str(compiled((SERVERS / "server.c").read_text(), root / "server", "-static"))]


def _busybox(*flags: str) -> Callable[[Path, str, int], list[str]]:
    def command(root: Path, name: str, port: int) -> list[str]:
        (root / "index.html").write_text(name)
        return [tool("busybox"), "httpd", *flags, "-p", str(port), "-h", str(root)]

    return command


def _nginx(listen: str, daemon: str = "daemon off;") -> Callable[[Path, str, int], list[str]]:
    def command(root: Path, name: str, port: int) -> list[str]:
        config = NGINX.format(root=root, name=name, daemon=daemon, listen=listen.format(port=port))
        (root / "nginx.conf").write_text(config)
        return [tool("nginx"), "-e", "stderr", "-p", str(root), "-c", str(root / "nginx.conf")]

    return command


def _node(source: str) -> Callable[[Path, str, int], list[str]]:
    def command(root: Path, _name: str, _port: int) -> list[str]:
        (root / "server.js").write_text(source)
        return [tool("node"), str(root / "server.js")]

    return command


def _http_server(*flags: str) -> Callable[[Path, str, int], list[str]]:
    def command(root: Path, name: str, port: int) -> list[str]:
        (root / "index.html").write_text(name)
        return [sys.executable, "-m", "http.server", *flags, str(port), "-d", str(root)]

    return command


def _shell(root: Path, name: str, port: int) -> list[str]:
    (root / "index.html").write_text(name)
    script = f'echo starting; "$0" -m http.server {port} -d {root}; echo ended'
    return ["/bin/sh", "-c", script, sys.executable]


def _module(module: str, *flags: str) -> Callable[[Path, str, int], list[str]]:
    def command(root: Path, _name: str, port: int) -> list[str]:
        for source in ("asgi.py", "wsgi.py"):
            (root / source).write_bytes((SERVERS / source).read_bytes())
        return [sys.executable, "-m", module, *(flag.format(port=port) for flag in flags)]

    return command


_GUNICORN = ("gunicorn", "wsgi:app", "--workers", "2", "-b", "0.0.0.0:{port}")
_UVICORN = ("uvicorn", "asgi:app", "--no-access-log", "--port", "{port}")

PROGRAMS: Mapping[str, Program] = {
    program.name: program
    for program in (
        Program("static", _static),
        Program("busybox", _busybox("-f"), graceful=False),
        Program("busybox-background", _busybox(), graceful=False),
        Program("nginx", _nginx("listen {port};"), stop=3),
        Program("nginx-background", _nginx("listen {port};", daemon=""), stop=3),
        Program("nginx-reuseport", _nginx("listen {port} reuseport;"), stop=3),
        Program("nginx-both-families", _nginx("listen {port}; listen [::]:{port};"), stop=3),
        Program("node", _node(NODE_PLAIN), graceful=False),
        Program("node-cluster", _node(NODE_CLUSTER), graceful=False),
        Program("http.server", _http_server(), graceful=False),
        Program("http.server-ipv6", _http_server("--bind", "::"), graceful=False),
        Program("shell", _shell, graceful=False),
        Program("gunicorn", _module(*_GUNICORN)),
        Program("gunicorn-reuseport", _module(*_GUNICORN, "--reuse-port")),
        Program("uvicorn", _module(*_UVICORN), graceful=False),
        Program("uvicorn-workers", _module(*_UVICORN, "--workers", "2"), graceful=False),
    )
}
