"""Keys and known hosts for SSH, from the files of the settings, by asyncssh; read for each connection."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import asyncssh

from agent.domain.errors import OperatorNeeded
from agent.kit.mask import secrets
from agent.kit.text import printable
from agent.ssh.access import SshAccess, Words

FILE_MAX = 1 << 20  # bytes of a key, passphrase or known_hosts file


async def agent_keys(access: SshAccess, stack: AsyncExitStack) -> Sequence[asyncssh.SSHKeyPair]:
    """The keys of the ssh-agent, to be used until `stack` ends. Raises OperatorNeeded."""
    if access.agent is None:
        return ()
    try:
        agent = await asyncssh.connect_agent(str(access.agent))
        stack.push_async_callback(agent.wait_closed)
        stack.callback(agent.close)
        return list(await agent.get_keys())
    except (OSError, ValueError) as error:
        raise OperatorNeeded(
            access.words.denied,
            f"the SSH agent does not answer: {getattr(error, 'strerror', None) or type(error).__name__}",
            where=str(access.agent),
            remedy="start it, and let --ssh-agent name its socket",
        ) from error


def known_hosts(access: SshAccess) -> asyncssh.SSHKnownHosts:
    """All known hosts; of the default files those that are there. Blocks. Raises OperatorNeeded."""
    known = asyncssh.SSHKnownHosts()
    for path in access.known_hosts_files:
        if not access.known_hosts and not path.exists():
            continue
        try:
            known.load(_read(path, access.words).decode())
        except (ValueError, UnicodeDecodeError) as error:
            raise OperatorNeeded(
                "HostKeyRefused",
                f"the file of known hosts cannot be read: {printable(str(error), 200)}",
                where=str(path),
                remedy="correct it; ssh-keyscan(1) writes such files",
            ) from error
    return known


def private_key(access: SshAccess) -> asyncssh.SSHKey:
    """The key of the settings. Blocks, long for an encrypted one. Raises OperatorNeeded."""
    assert access.key is not None
    passphrase = None
    if access.passphrase is not None:
        passphrase = _read(access.passphrase, access.words).decode("utf-8", "replace").rstrip("\r\n")
        secrets.add(passphrase)
    try:
        return asyncssh.import_private_key(_read(access.key, access.words), passphrase)
    except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError) as error:
        called = access.words
        if isinstance(error, asyncssh.KeyEncryptionError) or "assphrase" in str(error):
            words = "the passphrase does not open the key" if passphrase else "the key is encrypted"
            remedy = f"let {called.passphrase} name a file with its passphrase"
        else:
            words = "the file holds no private key that can be read"
            remedy = f"{called.key} names a private key as ssh-keygen(1) writes it"
        raise OperatorNeeded(called.denied, words, where=str(access.key), remedy=remedy) from error


def _read(path: Path, called: Words) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        words = f"the file cannot be read: {error.strerror or type(error).__name__}"
        raise OperatorNeeded(called.denied, words, where=str(path), remedy="check path and owner") from error
    if len(data) > FILE_MAX:
        words = f"the file is larger than {FILE_MAX} bytes"
        raise OperatorNeeded(called.denied, words, where=str(path), remedy="name the right file")
    return data
