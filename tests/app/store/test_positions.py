"""Places between places."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.store.positions import between, numbered

PLACES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=6)


@given(PLACES, PLACES)
def test_a_place_between_two_lies_between_them(one: str, other: str):
    low, high = sorted((one, other))
    place = between(low, high)
    if place is not None:
        assert low < place < high
    elif low < high:
        # Only what begins with the other and goes on with the lowest character has nothing between.
        assert high.startswith(low)
        assert not high[len(low) :].strip(" ")


@given(st.text(max_size=6), st.text(max_size=6))
def test_any_synced_text_can_be_a_neighbour(one: str, other: str):
    low, high = sorted((one, other))
    place = between(low, high)
    assert place is None or low < place < high


@given(PLACES)
def test_there_is_always_room_at_the_end(low: str):
    place = between(low, None)
    assert place is not None
    assert place > low


def test_many_moves_to_the_same_gap_keep_places_short():
    low, high = "2026-03-14T09:26:53.000Z", "2026-03-14T09:26:53.001Z"
    for _ in range(200):
        place = between(low, high)
        assert place is not None
        assert low < place < high
        high = place
    assert len(high) < 80


def test_numbers_come_before_every_time():
    places = numbered(1000)
    assert places == sorted(places)
    assert places[-1] < "1970-01-01T00:00:00Z"
