"""Notices for people: to Slack and what takes its messages (Mattermost, Rocket.Chat), or as plain JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from agent.domain.errors import OperatorNeeded
from agent.kit.templating.meter import Limits, TemplateFault
from agent.notify.letter import Call, Letter, Notice, NoticeKind
from agent.notify.statuses import Read

TEMPLATE_MAX = 8 << 10  # characters
_LIMITS = Limits(source=TEMPLATE_MAX, output=16 << 10, made=1 << 18, steps=5000, seconds=0.2)
_MARKS = {
    NoticeKind.DEPLOYED: "✅",
    NoticeKind.FAILED: "❌",
    NoticeKind.ROLLED_BACK: "↩️",
    NoticeKind.RECOVERED: "✅",
    NoticeKind.PAUSED: "⏸️",
    NoticeKind.RESUMED: "▶️",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """The channel to one place. `url` and `token` read what may be secret; `template` "" = a text of ours."""

    name: str
    kind: str  # slack or json
    url: Read
    token: Read | None
    on: frozenset[NoticeKind]
    template: str = ""
    link: str = ""

    def call(self, letter: Letter) -> Call:
        """See `Channel`."""
        notice = msgspec.json.decode(letter.body, type=Notice)
        text = self.text(notice)
        headers = {"Authorization": f"Bearer {self.token()}"} if self.token is not None else {}
        if self.kind == "slack":
            return Call(self.url(), headers, {"text": text})
        content = {**msgspec.to_builtins(notice), "text": text, "link": self.link}
        return Call(self.url(), headers, content)

    def accepted(self, status: int, answer: str) -> bool:  # noqa: ARG002 - one signature for all
        """See `Channel`."""
        return 200 <= status < 300

    def text(self, notice: Notice) -> str:
        """What people read. Raises OperatorNeeded("NoticesInvalid") when the template does not work out."""
        values = {**msgspec.to_builtins(notice), "link": self.link}
        if self.kind == "slack":
            values = {name: _escaped(value) for name, value in values.items()}
        if not self.template:
            return _own_words(values)
        return render(self.template, values)


def render(template: str, values: dict[str, Any]) -> str:
    """A template's text. Raises OperatorNeeded("NoticesInvalid")."""
    from agent.kit.templating.template import parse  # 3 MiB that most agents never need

    try:
        return parse(template, _LIMITS).render(values, _LIMITS)
    except TemplateFault as fault:
        raise OperatorNeeded(
            "NoticesInvalid", f"a template of --notices: {fault}", remedy="correct it and restart the agent"
        ) from None


def _escaped(value: Any) -> Any:
    """The three characters that Slack gives a meaning to."""
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {name: _escaped(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def _own_words(v: dict[str, Any]) -> str:
    what = f"{v['app']} {v['version']}".strip() or "the state"
    at = f" at {v['commit'][:12]}" if v["commit"] else ""
    head = f"{_MARKS[NoticeKind(v['kind'])]} {v['host']}: {what} {v['kind']}{at}"
    why = f"{v['step']}: " if v["step"] else ""
    why += f"{v['reason']}: {v['message']}" if v["reason"] else v["message"]
    now = f"{v['serving']} serves" if v["serving"] and v["serving"] != v["version"] else ""
    return "\n".join(line for line in (head, why, v["remedy"], now, v["link"]) if line)
