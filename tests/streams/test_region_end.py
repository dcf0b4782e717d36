"""A batch and its places go into Redis together or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis

from edge_service import region_store
from edge_service.region_payloads import live_of
from edge_service.region_store import Full, LiveRow, RegionStore
from streams.region_end import Batch, Moved, RegionEnd
from tandem.errors import Unavailable
from tandem.offer import Live
from tandem.regions import Region
from tests.edge_service.conftest import region_at

pytestmark = pytest.mark.servers

PART = "inventory:0"


@pytest.fixture
def region(redis_url: str) -> Region:
    return region_at(redis_url)


@pytest.fixture
def end(region: Region) -> Iterator[RegionEnd]:
    found = RegionEnd(region)
    yield found
    found.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as found:
        yield found


def batch(before: str, after: str, stock: int, sequence: int = 1, *, again: bool = False) -> Batch:
    found = Batch()
    found.again = again
    found.changes.add("1", sequence, 1_000, stock)
    found.moves.append((PART, before, after))
    return found


def stock(client: redis.Redis) -> Live | None:
    words = client.hget(region_store.LIVE, "1")
    return None if words is None else live_of(words)  # type: ignore[arg-type]


def test_changes_and_places_come_together(end: RegionEnd, client: redis.Redis) -> None:
    end.send(batch("", "1 0 0", 5))
    end.send(batch("1 0 0", "2 0 0", 6, 2))
    assert [done.applied for done in end.settle()] == [1, 1]
    assert end.places() == {PART: "2 0 0"}
    assert stock(client) == Live(6, None)


def test_a_place_that_has_moved_on_refuses_all_that_builds_on_it(end: RegionEnd, client: redis.Redis) -> None:
    end.send(batch("", "1 0 0", 5))
    list(end.settle())
    end.send(batch("7 0 0", "8 0 0", 6, 2))
    end.send(batch("8 0 0", "9 0 0", 7, 3))
    with pytest.raises(Moved, match="OTHERPLACE inventory:0"):
        list(end.settle())
    assert end.places() == {PART: "1 0 0"}
    assert stock(client) == Live(5, None)
    end.send(batch("1 0 0", "2 0 0", 6, 2))
    assert [done.applied for done in end.settle()] == [1]


def test_a_batch_without_changes_moves_its_places_and_tells_edges_nothing(end: RegionEnd, client: redis.Redis) -> None:
    found = Batch()
    found.moves.append((PART, "", "5 0 0"))
    end.send(found)
    assert [done.applied for done in end.settle()] == [0]
    assert (end.places(), client.exists(region_store.DELTAS)) == ({PART: "5 0 0"}, 0)


def test_a_script_that_fails_half_way_leaves_the_places(end: RegionEnd, client: redis.Redis) -> None:
    client.set(region_store.DELTAS, "no stream")
    end.send(batch("", "1 0 0", 5))
    with pytest.raises(Unavailable):
        list(end.settle())
    assert end.places() == {}
    client.delete(region_store.DELTAS)
    end.send(batch("", "1 0 0", 5))
    list(end.settle())
    assert (end.places(), stock(client)) == ({PART: "1 0 0"}, Live(5, None))


def test_a_full_redis_takes_neither(end: RegionEnd, client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)
    try:
        end.send(batch("", "1 0 0", 5))
        with pytest.raises(Full):
            list(end.settle())
    finally:
        client.config_set("maxmemory", 0)
    assert (end.places(), stock(client)) == ({}, None)


def test_what_is_told_again_wins_over_a_later_snapshot_and_a_duplicate_does_not(
    end: RegionEnd, region: Region, client: redis.Redis
) -> None:
    end.send(batch("", "1 0 0", 5))
    list(end.settle())
    with RegionStore(region) as store:
        store.seed_live([LiveRow(sku="1", stock=9)], datetime(2026, 1, 5, tzinfo=UTC))
    end.send(batch("1 0 0", "2 0 0", 5))
    assert [done.applied for done in end.settle()] == [0]
    assert stock(client) == Live(9, None)
    end.send(batch("2 0 0", "2 2 1", 5, again=True))
    assert [done.applied for done in end.settle()] == [1]
    assert stock(client) == Live(5, None)


def test_a_redis_that_forgot_the_script_is_asked_anew(end: RegionEnd, client: redis.Redis) -> None:
    end.send(batch("", "1 0 0", 5))
    list(end.settle())
    client.script_flush()
    end.send(batch("1 0 0", "2 0 0", 6, 2))
    with pytest.raises(Moved):
        list(end.settle())
    end.send(batch("1 0 0", "2 0 0", 6, 2))
    assert [done.applied for done in end.settle()] == [1]


def test_a_snapshot_is_known_once_it_is_noted_and_the_same_once_more_is_another(end: RegionEnd, region: Region) -> None:
    assert end.snapshot() == (0, {})
    with RegionStore(region) as store:
        store.note_snapshot({"stock": datetime(2026, 1, 5, tzinfo=UTC)})
        first = end.snapshot()
        store.note_snapshot({})
        assert end.snapshot() == first
        store.note_snapshot({"stock": datetime(2026, 1, 5, tzinfo=UTC)})
    assert first.times == end.snapshot().times == {"stock": 1_767_571_200_000}
    assert end.snapshot().mark > first.mark > 0
