from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.traffic.state import (
    CLOSED,
    SHARES,
    SIDES,
    TRANSITIONS,
    GateNote,
    GateState,
    Mode,
    NotNow,
    Verb,
    advance,
    read_note,
)

STATES = [CLOSED, GateState(Mode.MAINTENANCE)] + [
    GateState(mode, side) for mode in (Mode.HOLDING, Mode.OPEN) for side in SIDES
]
STATES += [GateState(Mode.CANARY, side, percent) for side in SIDES for percent in (1, 10, 99)]
states = st.sampled_from(STATES)
verbs = st.sampled_from(Verb)
sides = st.sampled_from(SIDES)
shares = st.sampled_from(SHARES)


@given(states, verbs, sides, shares)
def test_a_verb_leads_to_the_tables_mode_with_the_asked_side_or_is_refused(
    state: GateState, verb: Verb, side: int, percent: int
) -> None:
    expected = TRANSITIONS.get((state.mode, verb))
    if expected is None or (expected is Mode.CANARY and side == state.side):
        with pytest.raises(NotNow, match=verb.value):
            advance(state, verb, side, percent)
        return
    after = advance(state, verb, side, percent)
    assert after.mode is expected
    if expected is Mode.CANARY:
        assert (after.side, after.tried, after.percent) == (state.side, side, percent)
    else:
        assert after.side == (side if expected in (Mode.HOLDING, Mode.OPEN) else None)
        assert (after.tried, after.percent) == (None, 0)


@given(states, sides)
def test_a_side_is_reached_when_it_is_the_states_own_or_gets_a_share(state: GateState, side: int) -> None:
    assert state.reaches(side) == (side in (state.side, state.tried))


@given(st.lists(st.tuples(verbs, sides), max_size=30))
def test_no_sequence_of_verbs_leaves_the_states_or_serves_without_being_told_to(
    sequence: list[tuple[Verb, int]],
) -> None:
    state, served = CLOSED, None
    for verb, side in sequence:
        try:
            state = advance(state, verb, side, 10)
        except NotNow:
            continue
        if verb is not Verb.CANARY:
            served = side if verb is Verb.SERVE else None
        assert state in STATES
        assert (state.mode is Mode.OPEN) == (verb is Verb.SERVE)
        assert (state.mode is Mode.CANARY) == (verb is Verb.CANARY)
        assert state.mode not in (Mode.OPEN, Mode.CANARY) or state.side == served


@pytest.mark.parametrize("state", STATES, ids=str)
def test_every_state_can_be_closed_and_only_a_hold_expires(state: GateState) -> None:
    assert advance(state, Verb.CLOSE) == CLOSED
    assert ((state.mode, Verb.EXPIRE) in TRANSITIONS) == (state.mode is Mode.HOLDING)


@pytest.mark.parametrize(
    ("mode", "side"), [(Mode.OPEN, None), (Mode.HOLDING, 2), (Mode.MAINTENANCE, 0), (Mode.CLOSED, 1)]
)
def test_a_state_with_the_wrong_side_cannot_be_made(mode: Mode, side: int | None) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        GateState(mode, side)


@pytest.mark.parametrize(
    ("mode", "percent"), [(Mode.CANARY, 0), (Mode.CANARY, 100), (Mode.CANARY, -1), (Mode.OPEN, 10)]
)
def test_a_state_with_the_wrong_share_cannot_be_made(mode: Mode, percent: int) -> None:
    with pytest.raises(ValueError, match="share"):
        GateState(mode, 0, percent)


@pytest.mark.parametrize("side", [None, 2, -1])
def test_a_canary_is_of_one_of_the_two_sides(side: int | None) -> None:
    with pytest.raises(ValueError, match="side"):
        advance(GateState(Mode.OPEN, 0), Verb.CANARY, side, 10)


@given(states.filter(lambda s: s != CLOSED), st.floats(0, 1e9), st.permutations([0, 1, 2]))
def test_a_note_is_read_back_as_it_was_left(state: GateState, until: float, order: list[int]) -> None:
    note = GateNote(state.mode, state.side, until, [1], {"http": order}, percent=state.percent)
    assert read_note({"key": note.encode()}, "key") == note
    assert note.state == state


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"mode": "ajar"}',
        '{"mode": "open"}',
        '{"mode": "canary", "side": 0}',
        '{"mode": "canary", "side": 0, "percent": 100}',
        '{"mode": "open", "side": 0, "percent": 10}',
        '{"mode": "open", "side": 7}',
        '{"mode": "closed"}',
    ],
)
def test_a_note_that_makes_no_sense_counts_as_none(text: str) -> None:
    assert read_note({"key": text}, "key") is None
    assert read_note({}, "key") is None
