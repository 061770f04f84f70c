"""The maintenance page: what a client is told while no child serves, in the form it asked for.

HTML for people, JSON for programs, plain text for everyone else (RFC 9110 section 12.5.1). An app may
bring an HTML template of its own; it is rendered by a function given from outside, which owns the
template language and its sandbox. A template that fails, or takes too long, is replaced by the
built-in page until the next `configure`: clients get an answer in any case.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from agent.domain.spec import MaintenanceSpec

log = logging.getLogger(__name__)

REFRESH = 3  # seconds after which the page loads itself again
RENDER_DEADLINE = 2.0  # seconds an app's own template may take
PAGE_MAX = 1 << 20  # bytes an app's own page may have
ACCEPT_ITEMS = 32  # media ranges of an Accept header that are looked at


@dataclass(frozen=True, slots=True)
class Progress:
    """What is going on, in words the public may read (no URLs, no paths, no names of machines).

    `phase` is a short present participle ("Unpacking"), `detail` more of it ("34 of 80 MiB"),
    `percent` 0 to 100 or None when nobody knows, `since` the start in seconds since the epoch (0: unknown),
    `left` the seconds that are left, going by earlier updates (None: nobody knows).
    """

    phase: str = "Updating"
    detail: str = ""
    percent: float | None = None
    since: float = 0.0
    left: int | None = None


Render = Callable[[str, Progress], str]


class Form(StrEnum):
    """The forms the page comes in, as media types."""

    TEXT = "text/plain"
    HTML = "text/html"
    JSON = "application/json"
    PROBLEM = "application/problem+json"  # RFC 9457


def choose(accept: str) -> Form:
    """The form an Accept header asks for. Nothing named, or nothing acceptable: plain text.

    Only what is asked for by name counts first: a browser names text/html, and `*/*` behind it stands
    for images and scripts.
    """
    best, best_rank = Form.TEXT, (0.0, 0, -ACCEPT_ITEMS)
    for position, item in enumerate(accept.split(",")[:ACCEPT_ITEMS]):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        form, precision = _form_of(media)
        if form is None:
            continue
        rank = (_quality(parameters), precision, -position)
        if rank[0] > 0 and rank > best_rank:
            best, best_rank = form, rank
    return best


def _form_of(media: str) -> tuple[Form | None, int]:
    if media in ("*/*", "text/*"):
        return Form.TEXT, 0 if media == "*/*" else 1
    if media in ("application/*", "application/json"):
        return Form.JSON, 1 if media == "application/*" else 2
    if media in ("text/html", "application/xhtml+xml"):
        return Form.HTML, 2
    if media in (Form.TEXT, Form.PROBLEM):
        return Form(media), 2
    return (Form.JSON, 2) if media.endswith("+json") else (None, 0)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


def elapsed(since: float, now: float) -> str:
    """How long something has been going on, as a page says it: "", "12 s", "3 min", "2 h 5 min"."""
    return span(int(now - since)) if since else ""


def remaining(left: int | None) -> str:
    """What is left, as a page says it: "", "any moment now", "about 12 s left"."""
    if left is None:
        return ""
    return f"about {span(left)} left" if left >= 1 else "any moment now"


def span(seconds: int) -> str:
    """Whole seconds in one or two words; "" when there are none."""
    if seconds < 1:
        return ""
    if seconds < 100:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def whole_percent(percent: float | None) -> int | None:
    """A percentage fit to be shown: whole, within 0 to 100, never 100 too early."""
    if percent is None or math.isnan(percent):
        return None
    return int(min(100.0, max(0.0, percent)))


@functools.cache
def _template() -> Callable[..., str]:
    import jinja2  # the idle agent needs none of it

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text = Path(__file__).with_name("maintenance.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render


def built_in(_text: str, progress: Progress) -> str:
    """The built-in page: one self-contained HTML document, light and dark, without a script."""
    return _template()(
        phase=progress.phase,
        percent=whole_percent(progress.percent),
        more=_more(progress),
        refresh=REFRESH,
    )


def _more(progress: Progress) -> list[str]:
    """What there is to say beside phase and percentage."""
    for_long = elapsed(progress.since, time.time())
    parts = [progress.detail, for_long and f"for {for_long}", remaining(progress.left)]
    return [part for part in parts if part]


class Page:
    """The page of one app, rendered again only when what it says has changed."""

    def __init__(
        self, spec: MaintenanceSpec, progress: Callable[[], Progress], render: Render | None = None
    ) -> None:
        self._progress = progress
        self._render = render
        self._rendering = asyncio.Lock()
        self.configure(spec)

    def configure(self, spec: MaintenanceSpec) -> None:
        """Use the page and the times of `spec` from now on."""
        self.spec = spec
        self._own = bool(spec.page) and self._render is not None
        self._html: tuple[object, bytes] | None = None

    @property
    def retry_after(self) -> int:
        """Whole seconds for a Retry-After header (RFC 9110 section 10.2.3)."""
        return max(1, math.ceil(self.spec.retry_after))

    async def body(self, form: Form) -> bytes:
        """The page in one form, UTF-8. Never fails because of an app's own template."""
        progress = self._progress()
        if form is Form.HTML:
            return await self._html_body(progress)
        if form is Form.TEXT:
            return self._text(progress).encode()
        return self._json(progress)

    def _text(self, progress: Progress) -> str:
        percent = whole_percent(progress.percent)
        told = ", ".join([progress.phase, *([] if percent is None else [f"{percent} %"]), *_more(progress)])
        return (
            f"This service is being updated. Back in a moment.\n{told}\nTry again in {self.retry_after} s.\n"
        )

    def _json(self, progress: Progress) -> bytes:
        answer = {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "This service is being updated. Try again later.",
            "retry_after": self.retry_after,
            "progress": asdict(progress) | {"percent": whole_percent(progress.percent)},
        }
        return json.dumps(answer, indent=2).encode() + b"\n"

    async def _html_body(self, progress: Progress) -> bytes:
        async with self._rendering:
            key = (progress, int(time.time()), self._own)
            if self._html is None or self._html[0] != key:
                spec = self.spec
                body = await self._rendered(progress)
                if spec is not self.spec:  # reconfigured meanwhile: do not keep the old page
                    return body
                self._html = (key, body)
            return self._html[1]

    async def _rendered(self, progress: Progress) -> bytes:
        if self._own and self._render is not None:
            try:
                async with asyncio.timeout(RENDER_DEADLINE):
                    text = await asyncio.to_thread(self._render, self.spec.page, progress)
                body = text.encode()
                if len(body) <= PAGE_MAX:
                    return body
                problem = f"it is over {PAGE_MAX} bytes long"
            except Exception as error:  # whatever a template does
                problem = f"{type(error).__name__}: {error}"
            log.warning(
                "the app's own maintenance page cannot be used, the built-in one is shown: %s", problem
            )
            self._own = False
        return (await asyncio.to_thread(built_in, "", progress)).encode()
