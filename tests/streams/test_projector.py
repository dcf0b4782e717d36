"""From Kafka into a region's Redis: every change once, in whatever order and however often it came."""

from __future__ import annotations

import random
import signal

import pytest

from benchmarks._streams_world import World

pytestmark = pytest.mark.servers


def test_each_region_gets_its_own_changes_packed_in_few_entries(world: World) -> None:
    world.send(world.changes(3_000, regions=("north", "south")))
    world.projecting("north")
    world.projecting("south")
    world.wait("north", "south")
    assert sum(world.places("north").values()) == sum(world.places("south").values()) == 3_000
    assert len(world.entries("north")) < 100
    assert len(world.entries("north")[0][1]) > 10


def test_a_projector_that_is_told_to_stop_has_all_it_read_in_redis_and_goes_on_from_there(world: World) -> None:
    projecting = world.projecting()
    world.send(world.changes(500))
    world.wait()
    assert projecting.kill(signal.SIGTERM) == 0
    assert "stopped; all that was read is in Redis" in projecting.said
    before = world.entries()
    world.send(world.changes(500))
    world.projecting()
    world.wait()
    assert world.entries()[: len(before)] == before
    assert sum(world.places().values()) == 1_000


def test_duplicates_and_any_order_end_in_the_same_state(world: World) -> None:
    changes = world.changes(400)
    told = [*changes, *changes, *reversed(changes)]
    random.Random(3).shuffle(told)
    world.send(told)
    world.projecting()
    world.wait()
    assert sum(world.places().values()) == 1_200
