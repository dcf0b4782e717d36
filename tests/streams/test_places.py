"""Where reading begins: pure decisions, case by case and by their properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.places import Gone, Partition, Place, begin

PART = ("inventory", 3)


def partition(first: int = 0, end: int = 100, at_snapshot: int = 100, *, kept: bool = True) -> Partition:
    return Partition(PART, first, end, at_snapshot, kept)


def test_reading_goes_on_where_it_stood() -> None:
    assert begin(Place(40, 7, 5), partition(), 5) == Place(40, 7, 5)


def test_a_region_that_knows_nothing_reads_from_the_snapshot_on_or_all_there_is() -> None:
    assert begin(None, partition(at_snapshot=60), 5) == Place(60, 0, 5)
    assert begin(None, partition(first=20), 0) == Place(20, 0, 0)


def test_after_a_new_snapshot_what_came_since_its_time_is_told_again() -> None:
    assert begin(Place(90, 0, 5), partition(at_snapshot=60), 6) == Place(60, 90, 6)


def test_a_reader_that_is_behind_the_snapshot_skips_nothing() -> None:
    assert begin(Place(40, 0, 5), partition(at_snapshot=60), 6) == Place(40, 40, 6)


def test_a_second_snapshot_during_a_replay_loses_nothing_of_the_first() -> None:
    assert begin(Place(50, 90, 5), partition(at_snapshot=70), 6) == Place(50, 90, 6)


def test_a_topic_that_was_made_anew_is_read_as_if_nothing_were_known() -> None:
    assert begin(Place(500, 0, 5), partition(end=100, at_snapshot=60), 5) == Place(60, 0, 5)


def test_messages_that_are_gone_are_an_error_that_says_what_to_do() -> None:
    said = (
        r"topic inventory, partition 3: messages from 10 on are needed, but the broker kept only those from 20 on; "
        r"publish a newer snapshot \(tandem publish\), or accept the gap with --from-earliest"
    )
    with pytest.raises(Gone, match=said):
        begin(Place(10, 0, 5), partition(first=20), 5)
    assert begin(Place(10, 0, 5), partition(first=20, at_snapshot=20), 5, accept_gap=True) == Place(20, 0, 5)


def test_a_newer_snapshot_mends_a_gap() -> None:
    assert begin(Place(10, 0, 5), partition(first=20, at_snapshot=60), 6) == Place(60, 0, 6)


def test_a_snapshot_older_than_what_the_topic_keeps_is_too_old_for_a_region_that_lost_its_state() -> None:
    with pytest.raises(Gone, match="messages since the newest snapshot are needed"):
        begin(None, partition(first=20, at_snapshot=20, kept=False), 5)
    assert begin(None, partition(first=0, at_snapshot=0, kept=False), 5) == Place(0, 0, 5)


places = st.builds(Place, st.integers(0, 200), st.integers(0, 200), st.integers(0, 9))


@given(places)
def test_a_place_is_read_as_it_was_written(place: Place) -> None:
    assert Place.parse(str(place)) == place


@given(st.one_of(st.none(), places), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 9))
def test_reading_never_begins_past_what_was_read_without_a_snapshot_that_covers_it(
    stored: Place | None, first: int, more: int, into: int, snapshot: int
) -> None:
    end = first + more
    found = partition(first, end, first + min(into, more))
    try:
        place = begin(stored, found, snapshot)
    except Gone:
        return
    assert first <= place.offset <= max(end, first)
    if stored is not None and first <= stored.offset <= end:
        assert place.offset <= stored.offset
