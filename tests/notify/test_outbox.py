"""The outbox: what replaces what, what is kept, and that it is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.notify.outbox import REMEMBERED, WAITING_MAX, Outbox


class Done:
    def __await__(self):  # type: ignore[no-untyped-def]
        return iter(())


def outbox() -> Outbox:
    return Outbox([], lambda *_: Done())


def test_a_newer_letter_takes_the_place_of_one_that_waits() -> None:
    box = outbox()
    assert box.put("c", "s", "one", b"1")
    assert box.put("c", "s", "two", b"2")
    assert box.put("c", "other", "one", b"1")
    assert [letter.mark for letter in box.waiting()] == ["two", "one"]


def test_what_was_said_last_is_not_said_again_even_when_it_was_sent() -> None:
    box = outbox()
    box.put("c", "s", "one", b"1")
    box.sent(box.waiting()[0])
    assert not box.put("c", "s", "one", b"1")
    assert box.put("c", "s", "two", b"2")
    assert box.put("c", "s", "one", b"1")


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=40))
def test_every_failure_is_sent_before_a_later_success_of_its_subject(
    script: list[tuple[int, bool, bool]],
) -> None:
    """Or a later failure took its place."""
    box, sent = outbox(), []
    for number, (topic, grave, deliver) in enumerate(script):
        box.put("c", str(topic), f"m{number}", b"", grave=grave)
        if deliver and box.heads("c"):
            letter = box.heads("c")[0]
            sent.append(letter)
            box.sent(letter)
    while heads := box.heads("c"):
        sent.append(heads[0])
        box.sent(heads[0])
    for subject in {str(about) for about, _, _ in script}:
        told = [letter.id for letter in sent if letter.subject == subject]
        assert told == sorted(told)
        put = [(f"m{n}", g) for n, (about, g, _) in enumerate(script) if str(about) == subject]
        marks = [letter.mark for letter in sent if letter.subject == subject]
        assert marks[-1] == put[-1][0]
        if graves := [mark for mark, grave in put if grave]:
            assert graves[-1] in marks


def test_however_many_commits_are_told_a_failure_told_to_a_chat_is_remembered() -> None:
    """Else nobody would hear that it is over."""
    box = outbox()
    box.put("ops", "app web", "failed ProbeFailed 1.0", b"", grave=True)
    box.sent(box.waiting()[0])
    for number in range(REMEMBERED * 2):
        box.put("commit-status", f"commit {number}", "success", b"")
        box.sent(box.waiting()[0])
    assert box.last("ops", "app web") == "failed ProbeFailed 1.0"


def test_it_is_bounded_and_failures_stay_longest() -> None:
    box = outbox()
    for number in range(WAITING_MAX):
        box.put("c", f"bad {number}", "x", b"", grave=True)
    for number in range(500):
        box.put("c", f"good {number}", "x", b"")
    waiting = box.waiting()
    assert len(waiting) == WAITING_MAX
    assert all(letter.grave for letter in waiting)
    for letter in waiting:
        box.sent(letter)
    for number in range(REMEMBERED * 2):
        box.put("c", f"more {number}", "x", b"")
        box.sent(box.waiting()[0])
    assert len(box._last) <= REMEMBERED + 2
