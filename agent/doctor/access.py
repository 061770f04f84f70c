"""Whether what lies elsewhere can be reached: the state repository, and the artifacts that are wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeAlias

from agent.config import Settings
from agent.doctor.findings import Finding, Verdict
from agent.domain.artifact_spec import ArtifactSpec
from agent.domain.errors import Failure
from agent.kit.clock import span

DEADLINE = 15.0  # seconds for each
AT_ONCE = 8  # artifacts
APART = 60.0  # seconds between our clock and the Git server's that are worth a word


async def repository(settings: Settings) -> list[Finding]:
    """The state repository: its answer for the followed ref, and what time its server thinks it is."""
    from agent.source.git.access import ssh_access
    from agent.source.git.remote import GitRemote

    if not settings.repo:
        remedy = "give --repo, or EMPTYBOX_REPO, as for emptybox run"
        return [Finding("git", Verdict.UNKNOWN, "no state repository is named", remedy)]
    began = time.monotonic()
    try:
        remote = GitRemote(
            settings.repo, credentials=settings.credentials_file, deadline=DEADLINE, ssh=ssh_access(settings)
        )
        async with remote:
            commit = await remote.ls_ref(settings.ref)
    except Failure as failure:
        info = failure.info
        return [Finding("git", Verdict.BAD, f"{info.reason}: {info.message}", info.remedy)]
    took = span(time.monotonic() - began)
    found = [Finding("git", Verdict.OK, f"{settings.ref} is {commit[:12]}, asked in {took}")]
    if settings.repo.startswith(("http://", "https://")):
        found += await _clocks(settings.repo)
    return found


async def _clocks(url: str) -> list[Finding]:
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as session,
            session.head(url, allow_redirects=False) as answer,
        ):
            theirs = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except (aiohttp.ClientError, TimeoutError, ValueError, TypeError):
        return []  # the repository answered; its server does not have to tell the time
    apart = time.time() - theirs
    if abs(apart) <= APART:
        return []
    which = "ahead of" if apart > 0 else "behind"
    told = f"this host is {span(abs(apart))} {which} the Git server"
    return [Finding("clock", Verdict.WARN, told, "set the clock: certificates and signatures need it")]


Reach: TypeAlias = Callable[[ArtifactSpec], Awaitable[int | None]]
"""Opens an artifact and tells its size in bytes. Raises Failure, OSError."""


async def artifacts(wanted: Mapping[str, ArtifactSpec], reach: Reach) -> list[Finding]:
    """Each app's artifact. Raises nothing."""
    few = asyncio.Semaphore(AT_ONCE)

    async def look(app: str, spec: ArtifactSpec) -> Finding:
        async with few:
            return await _artifact(app, spec, reach)

    async with asyncio.TaskGroup() as group:
        looks = [group.create_task(look(app, spec), name=f"reach {app}") for app, spec in wanted.items()]
    return [look.result() for look in looks]


async def _artifact(app: str, spec: ArtifactSpec, reach: Reach) -> Finding:
    subject = f"artifact {app}"
    try:
        async with asyncio.timeout(DEADLINE):
            size = await reach(spec)
    except Failure as failure:
        info = failure.info
        return Finding(subject, Verdict.BAD, f"{info.reason}: {info.message} ({info.where})", info.remedy)
    except (OSError, TimeoutError) as error:
        return Finding(subject, Verdict.BAD, f"cannot be opened: {str(error) or 'no answer in time'}")
    told = "" if size is None else f", {size / (1 << 20):.1f} MiB"
    return Finding(subject, Verdict.OK, f"can be fetched{told}")
