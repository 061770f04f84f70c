"""A real sshd on a free port, with its own host keys and authorized keys: Git over SSH and SFTP for tests.

async with Sshd(tmp_path / "ssh") as server:
    server.allow(server.key("deploy"))                  # made by ssh-keygen
    url = server.url(repository.path)
    access = SshAccess(key=server.key("deploy"), known_hosts=(server.known_hosts(),))
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.kit.ports import free_port

DEADLINE = 30.0


def need(program: str) -> str:
    """The path of a program; without it the test is skipped, but fails in CI."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have {program}")
        pytest.skip(f"{program} is missing")
    return found


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key at `path`, its public half beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [need("ssh-keygen"), "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


class Sshd:
    """One server. `options` are lines of sshd_config(5) that come first, and so win."""

    def __init__(
        self, directory: Path, *, options: Sequence[str] = (), host_keys: Sequence[str] = ("ed25519",)
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._options = options
        self._kinds = host_keys
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self.directory.mkdir(parents=True)
        for kind in self._kinds:
            keygen(self._host_key(kind), kind)
        (self.directory / "authorized").touch()
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it and wait until it answers."""
        program = need("sshd")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists
        config = self.directory / "config"
        config.write_text(
            "\n".join(
                [
                    *self._options,
                    f"ListenAddress 127.0.0.1:{self.port}",
                    *(f"HostKey {self._host_key(kind)}" for kind in self._kinds),
                    f"AuthorizedKeysFile {self.directory / 'authorized'}",
                    "AcceptEnv GIT_PROTOCOL",
                    "AllowTcpForwarding yes",
                    "Subsystem sftp internal-sftp",
                    "LogLevel VERBOSE",
                    "PasswordAuthentication no",
                    "PermitRootLogin prohibit-password",
                    "PidFile none",
                    "StrictModes no",
                    "UsePAM no",
                    "",
                ]
            )
        )
        with open(self.directory / "log", "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                program,
                "-D",
                "-e",
                "-f",
                str(config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        await self._answers()

    async def stop(self) -> None:
        """End it with all that serves a connection."""
        process, self._process = self._process, None
        if process is None:
            return
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in map(int, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 15)
        process.terminate()
        await process.wait()

    async def _answers(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while True:
                assert self._process is not None
                assert self._process.returncode is None, (self.directory / "log").read_text()
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                try:
                    if (await reader.read(4)) == b"SSH-":
                        return
                finally:
                    writer.close()

    # -- who is let in, and what is known ------------------------------------------------------------

    def key(self, name: str, passphrase: str = "", kind: str = "ed25519") -> Path:
        """A private key of this name, made when it is not there."""
        path = self.directory / "keys" / name
        return path if path.exists() else keygen(path, kind, passphrase)

    def allow(self, key: Path, options: str = "") -> None:
        """Let the owner of a private key in."""
        with open(self.directory / "authorized", "a") as file:
            file.write(f"{options} {key.with_suffix('.pub').read_text()}".lstrip())

    def known_hosts(self, name: str = "known_hosts", *, kind: str = "") -> Path:
        """A file that knows this server, by its key of one kind."""
        path = self.directory / name
        public = self._host_key(kind or self._kinds[0]).with_suffix(".pub").read_text()
        path.write_text(f"[127.0.0.1]:{self.port} {public}")
        return path

    def fingerprint(self, kind: str = "") -> str:
        """Of the host key, as ssh-keygen prints it."""
        command = [need("ssh-keygen"), "-l", "-f", str(self._host_key(kind or self._kinds[0]))]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]

    def url(self, path: Path) -> str:
        """The URL of a repository on this machine."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"

    def logins(self) -> int:
        """How many connections were let in."""
        return (self.directory / "log").read_text().count("Accepted publickey")

    def _host_key(self, kind: str) -> Path:
        return self.directory / "host" / kind


@contextlib.asynccontextmanager
async def ssh_agent(directory: Path, *keys: Path) -> AsyncIterator[Path]:
    """A real ssh-agent that holds these keys; its socket."""
    socket = directory / "agent.sock"
    process = await asyncio.create_subprocess_exec(
        need("ssh-agent"), "-D", "-a", str(socket), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(DEADLINE):
            while not socket.exists():
                await asyncio.sleep(0.01)
        for key in keys:
            adding = await asyncio.create_subprocess_exec(
                need("ssh-add"), "-q", str(key), env={**os.environ, "SSH_AUTH_SOCK": str(socket)}
            )
            assert await adding.wait() == 0
        yield socket
    finally:
        process.terminate()
        await process.wait()
