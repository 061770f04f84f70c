from __future__ import annotations

import json
import math
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.spec import MaintenanceSpec
from agent.traffic import page as page_module
from agent.traffic.page import (
    REFRESH,
    Form,
    Page,
    Progress,
    built_in,
    choose,
    elapsed,
    remaining,
    whole_percent,
)

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (BROWSER, Form.HTML),
        ("", Form.TEXT),
        ("*/*", Form.TEXT),
        ("text/*", Form.TEXT),
        ("text/plain", Form.TEXT),
        ("application/json", Form.JSON),
        ("application/json, text/plain, */*", Form.JSON),
        ("APPLICATION/JSON ; Q=1.0", Form.JSON),
        ("application/*", Form.JSON),
        ("application/vnd.api+json", Form.JSON),
        ("application/problem+json", Form.PROBLEM),
        ("text/html;q=0.2, application/json;q=0.9", Form.JSON),
        ("text/html;level=1;q=0, */*", Form.TEXT),
        ("application/json;q=0", Form.TEXT),
        ("image/avif,image/webp,*/*;q=0.8", Form.TEXT),
        ("text/html;q=nonsense, application/json;q=0.1", Form.JSON),
        ("image/png", Form.TEXT),
    ],
)
def test_the_form_is_what_was_asked_for_by_name(accept: str, form: Form) -> None:
    assert choose(accept) is form


@given(st.text())
def test_any_accept_header_gets_some_form(accept: str) -> None:
    assert choose(accept) in Form


class Reader(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def only(self, tag: str, **attributes: str) -> dict[str, str | None]:
        found = [a for t, a in self.tags if t == tag and attributes.items() <= a.items()]
        assert len(found) == 1, (tag, attributes, found)
        return found[0]


def test_the_built_in_page_says_what_is_going_on_and_looks_again_without_a_script() -> None:
    page = Reader(built_in("", Progress("Unpacking", "34 of 80 MiB", 42.9, time.time() - 12.5, 17)))
    for said in ("Unpacking", "34 of 80 MiB · for 12 s · about 17 s left", "42 %"):
        assert said in page.text
    assert page.only("meta", **{"http-equiv": "refresh"})["content"] == str(REFRESH)
    bar = page.only("div", role="progressbar")
    assert (bar["aria-valuenow"], bar["aria-label"]) == ("42", "Unpacking")
    assert page.only("html")["lang"] == "en"
    assert {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe"} == set()


def test_a_bar_without_a_percentage_claims_no_value() -> None:
    bar = Reader(built_in("", Progress("Starting"))).only("div", role="progressbar")
    assert "aria-valuenow" not in bar


def test_what_a_step_says_cannot_become_markup() -> None:
    text = built_in("", Progress("<script>x</script>", '"><img src=x onerror=y>', math.nan))
    assert "<script" not in text
    assert "<img" not in text


@given(st.one_of(st.none(), st.floats()))
def test_percentages_are_whole_and_between_0_and_100(percent: float | None) -> None:
    whole = whole_percent(percent)
    assert whole is None or 0 <= whole <= 100
    assert (whole is None) == (percent is None or math.isnan(percent))
    if percent is not None and percent < 100:
        assert whole != 100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, ""), (12.7, "12 s"), (99, "99 s"), (185, "3 min"), (7500, "2 h 5 min"), (-5, "")],
)
def test_time_is_told_in_one_or_two_words(seconds: float, text: str) -> None:
    assert elapsed(1000.0, 1000.0 + seconds) == text
    assert elapsed(0.0, 1000.0) == ""


@pytest.mark.parametrize(
    ("left", "text"),
    [(None, ""), (0, "any moment now"), (1, "about 1 s left"), (4000, "about 1 h 6 min left")],
)
def test_what_is_left_is_told_only_when_it_is_known(left: int | None, text: str) -> None:
    assert remaining(left) == text


async def test_programs_get_a_problem_with_the_progress_in_it() -> None:
    page = Page(MaintenanceSpec(retry_after=12.1), lambda: Progress("Starting", "v2", 7.9, 5.0, 9))
    for form in (Form.JSON, Form.PROBLEM):
        answer = json.loads(await page.body(form))
        assert (answer["status"], answer["retry_after"]) == (503, 13)
        assert answer["progress"] == {
            "phase": "Starting",
            "detail": "v2",
            "percent": 7,
            "since": 5.0,
            "left": 9,
        }


async def test_plain_text_says_it_in_three_lines() -> None:
    page = Page(
        MaintenanceSpec(retry_after=30), lambda: Progress("Unpacking", "34 of 80 MiB", 42.0, left=130)
    )
    assert (await page.body(Form.TEXT)).decode() == (
        "This service is being updated. Back in a moment.\nUnpacking, 42 %, 34 of 80 MiB, about 2 min left\n"
        "Try again in 30 s.\n"
    )


async def test_the_page_is_rendered_again_only_when_it_says_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.traffic.page.time.time", lambda: 1000.5)
    now, rendered = Progress("Fetching"), list[Progress]()

    def render(_: str, progress: Progress) -> str:
        rendered.append(progress)
        return progress.phase

    page = Page(MaintenanceSpec(page="own"), lambda: now, render)
    assert [await page.body(Form.HTML) for _ in range(3)] == [b"Fetching"] * 3
    now = Progress("Starting")
    assert await page.body(Form.HTML) == b"Starting"
    assert len(rendered) == 2


async def test_an_apps_own_page_gets_its_text_and_the_progress() -> None:
    page = Page(
        MaintenanceSpec(page="<b>@</b>"), lambda: Progress("Testing"), lambda t, p: t.replace("@", p.phase)
    )
    assert await page.body(Form.HTML) == b"<b>Testing</b>"
    page.configure(MaintenanceSpec(page="new @"))
    assert await page.body(Form.HTML) == b"new Testing"
    page.configure(MaintenanceSpec())
    assert b"<title>" in await page.body(Form.HTML)


@pytest.mark.parametrize("fault", ["raises", "is too long", "takes too long"])
async def test_an_own_page_that_fails_gives_way_to_the_built_in_one_until_it_is_changed(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def render(text: str, _: Progress) -> str:
        nonlocal calls
        calls += 1
        if text != "bad":
            return text
        if fault == "raises":
            raise ZeroDivisionError("in the template")
        if fault == "takes too long":
            time.sleep(0.2)
        return "x" * (page_module.PAGE_MAX + 1)

    if fault == "takes too long":
        monkeypatch.setattr(page_module, "RENDER_DEADLINE", 0.01)
    moment = Progress()
    page = Page(MaintenanceSpec(page="bad"), lambda: moment, render)
    assert b"<title>" in await page.body(Form.HTML)
    moment = Progress("Another")
    assert b"Another" in await page.body(Form.HTML)
    assert calls == 1
    assert "own maintenance page cannot be used" in caplog.text
    page.configure(MaintenanceSpec(page="good"))
    assert await page.body(Form.HTML) == b"good"
