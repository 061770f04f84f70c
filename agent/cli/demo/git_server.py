"""A Git server over smart HTTP on loopback: the real `git http-backend` behind a small CGI handler.

For the demo and the tests; needs the git program. Repositories are bare, below `root`, and anyone may
read and push unless `logins` names who may. After a push that changed refs, `on_push` hears of each,
as a forge's webhook would: a moment after the pusher has its answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import ClientError, web

from agent.kit.tasks import Owned

log = logging.getLogger(__name__)

NO_COMMIT = "0" * 40
HEADER_MAX = 64 << 10  # bytes of a CGI header
ANSWER = 120.0  # seconds one request may take
GRACE = 5.0  # seconds git may take to end after its last word
SETTINGS = {
    "http.receivepack": "true",
    "safe.directory": "*",
    "gc.auto": "0",
    "receive.unpackLimit": "1",  # a push stays one pack: half the time of serving many small files
}
# Everything git is told: nothing of the user's own configuration.
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_COUNT": str(len(SETTINGS)),
    **{f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(SETTINGS)},
    **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(SETTINGS.values())},
}


@dataclass(frozen=True, slots=True)
class Pushed:
    """One ref that a push changed. `before` and `after` are all zeros for none."""

    repository: str
    ref: str
    before: str
    after: str


class GitServer:
    """Serves the bare repositories below `root` at `url`. An async context manager.

    Args:
        root: directory of the repositories; `create` makes one.
        logins: user names and passwords of those who may come in; None opens it to all. May change.
        on_push: awaited for each changed ref, in order; its errors are logged.
    """

    def __init__(
        self,
        root: Path,
        *,
        logins: Mapping[str, str] | None = None,
        on_push: Callable[[Pushed], Awaitable[None]] | None = None,
    ) -> None:
        self.root = root
        self.logins = logins
        self.on_push = on_push
        self.url = ""
        self._port = 0
        self._backend = ""
        self._owned = Owned("git server")
        self._runner: web.AppRunner | None = None
        self._pushing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to serve; after `stop`, at the same address again."""
        # Started directly: by way of `git` each request would cost one more program.
        self._backend = str(Path(await git("--exec-path")) / "git-http-backend")
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self.handle)
        # Requests end when their clients go; bodies reach git as they came, gzip or not.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, auto_decompress=False, shutdown_timeout=1.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Stop serving and hearing; idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        await self._owned.aclose()
        self._owned = Owned("git server")

    async def create(self, name: str, *, branch: str = "main", object_format: str = "sha1") -> str:
        """Make an empty bare repository `name`; returns its URL."""
        path = self.root / name
        await git(
            "init",
            "-q",
            "--bare",
            f"--initial-branch={branch}",
            f"--object-format={object_format}",
            str(path),
        )
        return f"{self.url}/{name}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request of smart HTTP."""
        if not self._may(request):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})
        if not request.path.endswith("/git-receive-pack"):
            return await self._run_backend(request)
        # Not part of the request: git hangs up on its answer, and what it pushed must still be heard of.
        return await asyncio.shield(self._owned.start(self._push(request), name=f"push to {request.path}"))

    async def _push(self, request: web.Request) -> web.StreamResponse:
        repository = request.path.removesuffix("/git-receive-pack").strip("/")
        async with self._pushing:
            before = await self._refs(repository)
            response = await self._run_backend(request)
            after = await self._refs(repository)
        changes = [
            Pushed(repository, ref, before.get(ref, NO_COMMIT), after.get(ref, NO_COMMIT))
            for ref in sorted(before.keys() | after.keys())
            if before.get(ref) != after.get(ref)
        ]
        if changes and self.on_push is not None:
            self._owned.start(self._tell(changes), name=f"tell of {repository}")
        return response

    async def _tell(self, changes: list[Pushed]) -> None:
        for change in changes:
            try:
                assert self.on_push is not None
                await self.on_push(change)
            except Exception:
                log.exception("the push of %s was not heard", change.ref)

    def _may(self, request: web.Request) -> bool:
        if self.logins is None:
            return True
        scheme, _, code = request.headers.get("Authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(code, validate=True).partition(b":")
        except binascii.Error:
            return False
        wanted = self.logins.get(user.decode("utf-8", "replace"))
        return scheme == "Basic" and wanted is not None and hmac.compare_digest(wanted.encode(), password)

    async def _refs(self, repository: str) -> dict[str, str]:
        path = (self.root / repository).resolve()
        if not path.is_relative_to(self.root.resolve()) or not path.is_dir():
            return {}
        lines = (await git("for-each-ref", "--format=%(objectname) %(refname)", directory=path)).splitlines()
        return {ref: oid for oid, _, ref in (line.partition(" ") for line in lines)}

    def environment(self, request: web.Request) -> dict[str, str]:
        """The variables of RFC 3875 (CGI) that git-http-backend(1) reads."""
        variables = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "REMOTE_ADDR": request.remote or "",
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        }
        for variable, header in (
            ("CONTENT_LENGTH", "Content-Length"),
            ("HTTP_CONTENT_ENCODING", "Content-Encoding"),
            ("GIT_PROTOCOL", "Git-Protocol"),
        ):
            if header in request.headers:
                variables[variable] = request.headers[header]
        return variables

    async def _run_backend(self, request: web.Request) -> web.StreamResponse:
        async with asyncio.timeout(ANSWER), _program(self._backend, self.environment(request)) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            async with asyncio.TaskGroup() as group:
                group.create_task(_pour(request, program.stdin))
                response = await _head(program.stdout)
                with contextlib.suppress(ConnectionError):  # the client may have what it wants
                    await response.prepare(request)
                    while chunk := await program.stdout.read(1 << 16):
                        await response.write(chunk)
                    await response.write_eof()
        return response


async def git(*arguments: str, directory: Path | None = None, extra: Mapping[str, str] | None = None) -> str:
    """Run the git program apart from the user's configuration; its output. Raises RuntimeError."""
    process = await asyncio.create_subprocess_exec(
        "git",
        *arguments,
        cwd=directory,
        env={**ENVIRONMENT, **(extra or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(ANSWER):
            out, err = await process.communicate()
    finally:
        await _end(process)
    if process.returncode != 0:
        raise RuntimeError(f"git {' '.join(arguments)}: {err.decode(errors='replace').strip()}")
    return out.decode().strip()


@contextlib.asynccontextmanager
async def _program(program: str, environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program in a process group of its own, which is gone afterwards, whatever happens."""
    process = await asyncio.create_subprocess_exec(
        program,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.wait()
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _pour(request: web.Request, stdin: asyncio.StreamWriter) -> None:
    try:
        async for chunk in request.content.iter_any():
            stdin.write(chunk)
            await stdin.drain()
    except (ConnectionError, ClientError, web.RequestPayloadError):
        pass  # the program has read what it wanted, or the client is gone: either way it sees the end
    finally:
        stdin.close()


async def _head(stdout: asyncio.StreamReader) -> web.StreamResponse:
    """The response that a CGI header asks for."""
    response, size = web.StreamResponse(), 0
    while line := (await stdout.readline()).rstrip(b"\r\n"):
        size += len(line)
        name, _, value = line.decode("latin-1").partition(":")
        if size > HEADER_MAX or not name:
            break
        if name.lower() == "status":
            response.set_status(int(value.split()[0]))
        elif name.lower() != "content-length":
            response.headers[name] = value.strip()
    if not size:
        response.set_status(500)
    return response
