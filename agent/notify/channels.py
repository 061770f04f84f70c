"""Who is told: made of the agent's own settings, everything wrong named at once.

The file of `--notices`, in YAML:

    ops:                                  # a name
      kind: slack                         # slack (also Mattermost, Rocket.Chat) or json
      url_file: /run/secrets/slack-url    # or url, where it is no secret
      token_file: /run/secrets/token      # sent as Authorization: Bearer; optional
      on: [failed, rolled-back, recovered]
      template: "{{ host }}: {{ app }} {{ kind }}: {{ message }}"
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agent.config import Settings
from agent.domain.errors import Failure, OperatorNeeded
from agent.kit.mask import secrets
from agent.notify.chat import Chat, render
from agent.notify.letter import Notice, NoticeKind
from agent.notify.statuses import CHANNEL, CLOUDS, FORGES, Forge, Read

ON = (NoticeKind.FAILED, NoticeKind.ROLLED_BACK, NoticeKind.RECOVERED)
CHATS_MAX = 20
_FILE_MAX = 64 << 10  # bytes
_KEYS = {"kind", "url", "url_file", "token_file", "on", "template"}


def status_channel(settings: Settings) -> Forge | None:
    """The forge that is told how commits fare; None without a token. Raises OperatorNeeded."""
    if settings.status_token_file is None:
        return None
    parts = urlsplit(settings.repo)
    host = parts.hostname or ""
    known, cloud_api = CLOUDS.get(host, ("", ""))
    forge = settings.status_forge or known
    if forge not in FORGES:
        raise _invalid(
            f"--status-forge: cannot be told from {host or 'the repository'}; name one of {', '.join(FORGES)}"
        )
    kind, below = FORGES[forge]
    web = parts.scheme in ("http", "https")
    origin = f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}" if web else f"https://{host}"
    api = settings.status_api or cloud_api or origin + below
    if urlsplit(api).scheme not in ("http", "https") or not urlsplit(api).hostname:
        raise _invalid(f"--status-api: {api!r} is not an http(s) URL")
    path = parts.path.strip("/").removesuffix(".git").removeprefix("scm/")
    link = settings.public_url or f"{origin}/{path}"
    return kind(api.rstrip("/"), path, link, _secret(settings.status_token_file))


def chats(settings: Settings) -> list[Chat]:
    """The chats of `--notices`. Raises OperatorNeeded("NoticesInvalid") with every mistake."""
    if settings.notices is None:
        return []
    import yaml

    try:
        with settings.notices.open("rb") as file:
            content = yaml.load(file.read(_FILE_MAX), Loader=yaml.BaseLoader)  # noqa: S506 - plain texts only
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _invalid(f"{settings.notices}: {error}") from None
    if not isinstance(content, dict) or len(content) > CHATS_MAX:
        raise _invalid(f"{settings.notices}: not a mapping of at most {CHATS_MAX} names")
    problems: list[str] = []
    found = [_chat(str(name), told, settings, problems) for name, told in content.items()]
    if problems:
        raise _invalid("; ".join(f"{settings.notices}: {problem}" for problem in problems))
    return [chat for chat in found if chat is not None]


def _chat(name: str, told: Any, settings: Settings, problems: list[str]) -> Chat | None:
    if not isinstance(told, dict) or name == CHANNEL:
        problems.append(f"{name}: not a mapping, or a name that is taken")
        return None
    problems += [f"{name}: {key}: unknown key" for key in told if key not in _KEYS]
    kind, url, file = told.get("kind", "json"), told.get("url", ""), told.get("url_file", "")
    if kind not in ("slack", "json"):
        problems.append(f"{name}: kind: slack or json")
    if bool(url) == bool(file):
        problems.append(f"{name}: give either url or url_file")
    if url and urlsplit(url).scheme not in ("http", "https"):
        problems.append(f"{name}: url: not http:// or https://")
    on = told.get("on", list(ON))
    unknown = [word for word in on if word not in list(NoticeKind)] if isinstance(on, list) else [on]
    if unknown:
        problems.append(f"{name}: on: {', '.join(map(str, unknown))}: known are {', '.join(NoticeKind)}")
        on = []
    template = told.get("template", "")
    if template:
        problems += [f"{name}: {problem}" for problem in _faults(template, settings.labels)]
    token = told.get("token_file", "")
    return Chat(
        name=name,
        kind=kind,
        url=_secret(Path(file)) if file else lambda: str(url),
        token=_secret(Path(token)) if token else None,
        on=frozenset(map(NoticeKind, on)),
        template=template,
        link=settings.public_url,
    )


def _faults(template: Any, labels: Mapping[str, str]) -> list[str]:
    """What is wrong with a template: tried out on an empty notice."""
    if not isinstance(template, str):
        return ["template: not a text"]
    empty = msgspec.to_builtins(Notice(kind=NoticeKind.FAILED, host="", labels=dict(labels)))
    try:
        render(template, {**empty, "link": ""})
    except Failure as failure:
        return [failure.info.message]
    return []


def _secret(path: Path) -> Read:
    """Reads one line of a file on each use, and has it masked from then on."""

    def read() -> str:
        try:
            with path.open("rb") as file:
                text = file.read(_FILE_MAX).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise _invalid(f"a secret for notices cannot be read: {why}", str(path)) from None
        if not text or not text.isprintable():
            raise _invalid("a secret for notices is empty or has more than one line", str(path))
        secrets.add(text, *([text.partition(":")[2]] if ":" in text and "://" not in text else []))
        return text

    return read


def _invalid(message: str, where: str = "") -> OperatorNeeded:
    return OperatorNeeded("NoticesInvalid", message, where=where, remedy="correct the agent's settings")


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as one text, in the order of their names."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
