"""An app's own maintenance page, rendered with what is going on."""

from __future__ import annotations

import time

from agent.traffic.page import REFRESH, Progress


def render_own_page(text: str, progress: Progress) -> str:
    """An app's own page with what is going on. Jinja2 is imported for it only."""
    from agent.source.templates import render_page

    elapsed = max(0, int(time.time() - progress.since)) if progress.since else 0
    percent = None if progress.percent is None else int(progress.percent)
    values = {"phase": progress.phase, "detail": progress.detail, "percent": percent, "left": progress.left}
    return render_page(text, {**values, "elapsed": elapsed, "refresh": REFRESH})
