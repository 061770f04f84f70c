"""What may go of the store, by age and size, and what never does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.deploy.retention import Kept, surplus

DAY = 86400.0
SIZES = {"r1": 100, "r2": 200, "r3": 300, "r4": 400}


def kept(spec: str, release: str, age: float, *, needed: bool = False) -> Kept:
    return Kept("web", spec, release, age, needed)


def gone(*all_of_them: Kept, age: float = 0.0, size: int = 0) -> list[str]:
    return [one.spec for one in surplus(all_of_them, SIZES, most_age=age, most_bytes=size)]


def test_what_is_too_old_goes_unless_it_is_needed() -> None:
    old, good = kept("old", "r1", 9 * DAY), kept("good", "r2", 8 * DAY, needed=True)
    assert gone(old, good, kept("new", "r3", DAY), age=7 * DAY) == ["old"]


def test_the_oldest_go_first_and_no_more_than_has_to() -> None:
    some = [kept("s1", "r1", 4), kept("s2", "r2", 3), kept("s3", "r3", 2), kept("s4", "r4", 1, needed=True)]
    assert gone(*some, size=1000) == []
    assert gone(*some, size=950) == ["s1"]
    assert gone(*some, size=700) == ["s1", "s2"]
    assert gone(*some, size=1) == ["s1", "s2", "s3"]


def test_nothing_is_gained_by_forgetting_one_of_several_users_of_a_release() -> None:
    some = [kept("s1", "r4", 4), kept("s2", "r4", 1, needed=True), kept("s3", "r1", 2)]
    assert gone(*some, size=400) == ["s3"]


KEPT = st.builds(
    Kept, st.sampled_from("ab"), st.text(max_size=3), st.sampled_from(list(SIZES)), st.floats(0, 1e6),
    st.booleans(),
)  # fmt: skip


@given(st.lists(KEPT, max_size=12), st.floats(0, 1e6), st.integers(0, 2000))
def test_what_is_needed_never_goes_and_what_stays_is_within_the_bounds(
    some: list[Kept], age: float, size: int
) -> None:
    going = surplus(some, SIZES, most_age=age, most_bytes=size)
    staying = list(some)
    for one in going:
        staying.remove(one)
    assert not any(one.needed for one in going)
    free = [one for one in staying if not one.needed]
    if age:
        assert all(one.age <= age for one in free)
    if size and any(one.release not in {other.release for other in some if other.needed} for one in free):
        assert sum(SIZES[name] for name in {one.release for one in staying}) <= size
