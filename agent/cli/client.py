"""Asking the agent: HTTP over its Unix socket, with the standard library alone, so that verbs start fast."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from agent.cli.exit_codes import FAILED, NOT_NOW, UNREACHABLE, USAGE

CONNECT = 5.0  # seconds
ANSWER = 70.0  # seconds; the agent itself gives up after 60
WAIT = 930.0  # seconds; the agent itself gives up after 900
BODY_MAX = 64 << 20
LINE_MAX = 1 << 20
READ = 32 << 10
_PATH_MAX = 100  # of the 108 bytes of sun_path, unix(7)

_EXIT_CODES = dict.fromkeys((400, 404, 405, 413), USAGE) | dict.fromkeys((409, 429, 503, 504), NOT_NOW)

Json = dict[str, Any]


class Unreachable(click.ClickException):
    """No agent answers on the socket."""

    exit_code = UNREACHABLE


class Refused(click.ClickException):
    """The agent's answer is a problem (RFC 9457). `problem` is all of it."""

    def __init__(self, status: int, problem: Json) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP status {status}"))
        self.status = status
        self.problem = problem
        self.exit_code = _EXIT_CODES.get(status, FAILED)  # type: ignore[misc]  # click reads the instance's


def read_from(given: int) -> Iterator[bytes]:
    """All that can be read from a descriptor."""
    while data := os.read(given, READ):
        yield data


def _send(sock: socket.socket, given: Iterator[bytes]) -> None:
    """Send all that is given, in chunks (RFC 9112, section 7.1), while others read."""
    with contextlib.suppress(OSError):  # the agent wants no more of it
        for data in given:
            sock.sendall(b"%X\r\n%b\r\n" % (len(data), data))
        sock.sendall(b"0\r\n\r\n")


class _Connection(http.client.HTTPConnection):
    """HTTP to a path instead of a host."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path
        self._answer = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(min(CONNECT, self._answer))
            if len(os.fsencode(self._path)) < _PATH_MAX:
                self.sock.connect(os.fspath(self._path))
            else:
                self._connect_by_directory()
            self.sock.settimeout(self._answer)
        except BaseException:
            self.sock.close()
            raise

    def _connect_by_directory(self) -> None:
        """A path too long for the socket's address is named through its open directory."""
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


class Agent:
    """The agent behind a socket. Every method raises Unreachable and Refused."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, path: str, **query: str | int) -> Json:
        """A resource as JSON."""
        given = {name: value for name, value in query.items() if value != ""}
        _, answer = self._ask("GET", f"{path}?{urlencode(given)}" if given else path, None, ANSWER)
        return answer

    def alive(self, patience: float) -> None:
        """Whether its loop turns: it has this many seconds for a word."""
        self._exchange("GET", "/healthz", None, patience, "text/plain")

    def text(self, path: str) -> str:
        """A resource as text."""
        status, content = self._exchange("GET", path, None, ANSWER, "text/plain")
        if status >= 400:
            self._read(status, content)
        return content.decode(errors="replace")

    def stream(self, path: str, **query: str | int) -> Iterator[Json | None]:
        """Objects as they come, one a line, until the agent ends; None is a sign of life without content."""
        given = {name: value for name, value in query.items() if value != ""}
        with self._connected() as connection:
            connection.request("GET", f"{path}?{urlencode(given)}", headers={"Accept": "application/json"})
            yield from self._objects(connection)

    def attached(
        self, path: str, wish: Mapping[str, Any], given: Iterator[bytes] | None
    ) -> Iterator[Json | None]:
        """Ask for something, and get what is told of it as from `stream`.

        After the wish, in a line of its own, the agent is sent what is `given`, by a thread.
        """
        with self._connected() as connection:
            connection.putrequest("POST", path)
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Transfer-Encoding", "chunked")
            line = json.dumps(wish).encode() + b"\n"
            if given is None:
                connection.endheaders([line], encode_chunked=True)
            else:
                connection.endheaders(b"%X\r\n%b\r\n" % (len(line), line))
                sending = threading.Thread(target=_send, args=(connection.sock, given), daemon=True)
                sending.start()
            yield from self._objects(connection)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[_Connection]:
        """A connection on which the agent says something every 15 s."""
        connection = _Connection(self.path, ANSWER)
        try:
            with self._explained():
                yield connection
        finally:
            connection.close()

    def _objects(self, connection: _Connection) -> Iterator[Json | None]:
        response = connection.getresponse()
        if response.status >= 400:
            self._read(response.status, response.read(BODY_MAX))
        yield None
        while line := response.readline(LINE_MAX):
            yield json.loads(line) if line.strip() else None

    def post(self, path: str, wish: Mapping[str, Any], *, wait: bool = False) -> tuple[int, Json]:
        """Ask for something; status and answer. `wait` lets the agent answer when it is done."""
        return self._ask("POST", f"{path}?wait=1" if wait else path, wish, WAIT if wait else ANSWER)

    def _ask(
        self, method: str, target: str, wish: Mapping[str, Any] | None, timeout: float
    ) -> tuple[int, Json]:
        status, content = self._exchange(method, target, wish, timeout, "application/json")
        return status, self._read(status, content)

    def _exchange(
        self, method: str, target: str, wish: Mapping[str, Any] | None, timeout: float, accept: str
    ) -> tuple[int, bytes]:
        headers = {"Accept": accept}
        body = None
        if wish is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(wish)
        connection = _Connection(self.path, timeout)
        try:
            with self._explained():
                connection.request(method, target, body, headers)
                response = connection.getresponse()
                return response.status, response.read(BODY_MAX)
        finally:
            connection.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise Unreachable with what it means."""
        try:
            yield
        except http.client.RemoteDisconnected as error:
            raise Unreachable(f"the agent at {self.path} hung up; it may be starting again") from error
        except OSError as error:
            raise Unreachable(self._unreachable(error)) from error
        except http.client.HTTPException as error:
            raise Unreachable(f"what answers at {self.path} is no agent: {error!r}") from error

    def _read(self, status: int, content: bytes) -> Json:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Unreachable(f"what answers at {self.path} is no agent: status {status}, no JSON")
        if status >= 400:
            raise Refused(status, answer)
        return answer

    def _unreachable(self, error: OSError) -> str:
        if isinstance(error, TimeoutError):
            return f"the agent at {self.path} does not answer in time; its log may say why"
        if isinstance(error, PermissionError):
            return f"{self.path} may not be opened by this user: {error.strerror}; ask as the agent's user"
        if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
            return (
                f"no agent answers at {self.path}\n"
                "Start one with: emptybox run --repo URL\n"
                "Or say where it is: --socket PATH, EMPTYBOX_SOCKET, or EMPTYBOX_DATA (its data directory)"
            )
        return f"the agent at {self.path} cannot be asked: {error.strerror or error}"
