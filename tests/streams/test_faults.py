"""What goes wrong around a projector, with real servers: nothing is lost, nothing comes twice, the lag recovers.

Each test prints what it counted (`pytest -s`).
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from benchmarks._streams_world import World, flowing, killed_at_work, until
from edge_service import region_store
from edge_service.region_store import LiveRow, RegionStore
from streams import broker
from streams.messages import StockChanged, encode, headers
from streams.reading import TOPICS
from streams.topics import INVENTORY
from tandem.offer import Live
from tests.commands import tandem
from tests.conftest import RedisServer, RunningKafka
from tests.edge_service.conftest import region_at

pytestmark = pytest.mark.servers

KILLS = 12


def test_a_projector_killed_again_and_again_loses_and_doubles_nothing(world: World) -> None:
    chance, projecting = random.Random(1), world.projecting()
    with flowing(world):
        for _ in range(KILLS):
            killed_at_work(world, projecting, chance.uniform(0, 0.3))
            projecting.start()
    world.wait()
    sent, read = len(world.sent), sum(world.places().values())
    doubled = [told for told, times in world.counted().items() if times > 1]
    print(f"{KILLS} kills, {sent} sent, {read} read, {len(world.expected())} products right, {len(doubled)} doubled")
    assert (read, doubled) == (sent, [])


def test_partitions_that_move_between_projectors_lose_and_double_nothing(world: World) -> None:
    first = world.projecting("north", "--member", "a")
    with flowing(world):
        until(world.places)
        second = world.projecting("north", "--member", "b")
        until(lambda: "reads 6 partitions" in first.said)
        until(lambda: "reads 6 partitions" in second.said)
        time.sleep(0.5)
        first.kill(signal.SIGTERM)
        until(lambda: "reads 12 partitions" in second.said)
    world.wait()
    doubled = [told for told, times in world.counted().items() if times > 1]
    print(f"{len(world.sent)} sent, {sum(world.places().values())} read, {len(doubled)} doubled")
    assert (sum(world.places().values()), doubled) == (len(world.sent), [])


def test_a_projector_that_slept_through_a_rebalance_is_refused_and_begins_anew(world: World) -> None:
    sleeper = world.projecting("north", "--member", "a")
    world.send(world.changes(200))
    world.wait()
    assert sleeper.process is not None
    sleeper.process.send_signal(signal.SIGSTOP)
    waking = world.projecting("north", "--member", "b")
    until(lambda: "reads 12 partitions" in waking.said)
    world.send(world.changes(500))
    world.wait()
    sleeper.process.send_signal(signal.SIGCONT)
    with flowing(world):
        until(lambda: "reads 6 partitions" in waking.said and sleeper.said.count("reads") > 1)
    world.wait()
    doubled = [told for told, times in world.counted().items() if times > 1]
    print(f"{len(world.sent)} sent, {sum(world.places().values())} read, {len(doubled)} doubled")
    assert (sum(world.places().values()), doubled) == (len(world.sent), [])


def test_two_projectors_of_one_name_do_not_fight_the_older_one_ends_and_says_why(world: World) -> None:
    first = world.projecting()
    until(lambda: "reads 12 partitions" in first.said)
    second = world.projecting()
    assert first.process is not None
    assert first.process.wait(30) == 1
    assert "give each its own with --member" in first.said
    world.send(world.changes(100))
    until(world.arrived, said=lambda: second.said)


def test_a_broker_killed_while_changes_are_produced_loses_and_doubles_none(
    world: World, running_kafka: RunningKafka
) -> None:
    projecting = world.projecting()
    until(lambda: "reads 12 partitions" in projecting.said)
    producer, changes = broker.producer(world.settings), world.changes(3_000)
    for number, change in enumerate(changes):
        world.sent.append(change)
        broker.send(producer, world.settings, change)
        producer.poll(0)
        if number == 1_000:
            assert running_kafka.server.pid is not None
            os.killpg(running_kafka.server.pid, signal.SIGKILL)
        if number == 2_000:
            running_kafka.server.start()
    assert producer.flush(60) == 0
    world.wait()
    read, doubled = sum(world.places().values()), [t for t, times in world.counted().items() if times > 1]
    print(f"a killed broker: {len(changes)} sent, {read} read, {len(doubled)} doubled")
    assert (read, doubled) == (3_000, [])


def test_a_full_disk_stops_the_broker_and_with_room_again_all_arrives(
    world: World, running_kafka: RunningKafka
) -> None:
    import resource

    world.projecting()
    world.send(world.changes(100))
    world.wait()
    server = running_kafka.server
    assert server.pid is not None
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
    producer, changes = broker.producer(world.settings), world.changes(20_000, products=5_000)
    for change in changes:
        world.sent.append(change)
        broker.send(producer, world.settings, change)
        producer.poll(0)
    until(lambda: not server.healthy())
    waiting = len(producer)
    server.start()
    assert producer.flush(60) == 0
    world.wait()
    read = sum(world.places().values())
    print(f"a full disk: {len(world.sent)} sent, {waiting} waited in the producer, {read} read")
    assert (read, waiting > 0) == (20_100, True)


def test_a_broker_that_is_away_when_a_projector_starts_is_waited_for(world: World, running_kafka: RunningKafka) -> None:
    running_kafka.server.stop()
    try:
        projecting = world.projecting()
        until(lambda: "can't serve" in projecting.said, said=lambda: projecting.said)
    finally:
        running_kafka.server.start()
    until(lambda: "reads 12 partitions" in projecting.said, said=lambda: projecting.said)
    world.send(world.changes(500))
    world.wait()
    print(f"{len(world.sent)} sent, {sum(world.places().values())} read")
    assert sum(world.places().values()) == len(world.sent)


def test_redis_away_for_a_while_is_waited_for(world: World, redis_server: RedisServer) -> None:
    projecting = world.projecting()
    world.send(world.changes(300))
    world.wait()
    redis_server.stop()
    world.send(world.changes(300))
    until(lambda: "can't serve" in projecting.said)
    redis_server.start()
    world.wait()
    assert sum(world.places().values()) == 600


def test_a_redis_that_lost_everything_is_filled_again_from_kafka(world: World) -> None:
    world.projecting()
    world.send(world.changes(500))
    world.wait()
    with redis.Redis.from_url(world.urls["north"]) as client:
        client.flushdb()
    world.send(world.changes(10))
    world.wait()
    assert sum(world.places().values()) == 510


def test_what_came_since_a_snapshot_is_told_once_more_over_it(world: World) -> None:
    projecting = world.projecting()
    world.send(world.changes(300))
    world.wait()
    now = datetime.now(UTC) + timedelta(seconds=1)
    rows = [LiveRow(sku=sku, stock=7, list_price=77, sale_price=None) for sku in world.expected()]
    with RegionStore(region_at(world.urls["north"])) as store:
        for times in (1, 2):  # the same once more, as a second publish of a day brings it
            store.seed_live(rows, now)
            assert not world.arrived()
            store.note_snapshot({"stock": now, "prices": now})
            until(lambda times=times: projecting.said.count("records of them once more") == times)  # type: ignore[misc]
            until(lambda: covered(world.state(), world.expected()))
    world.send(world.changes(100))
    until(lambda: sum(world.places().values()) == 400)
    assert covered(world.state(), world.expected())


def covered(state: dict[str, Live], expected: dict[str, Live]) -> bool:
    """Whether all that Kafka told is there; what it never told of a product is the snapshot's."""
    return all(
        live.stock in (None, state[sku].stock)
        and (live.list_price is None or msgspec.structs.astuple(live)[1:] == msgspec.structs.astuple(state[sku])[1:])
        for sku, live in expected.items()
    )


def test_poison_goes_to_the_dead_letters_with_its_reason_and_what_is_behind_it_comes_through(world: World) -> None:
    good = world.changes(20)
    usual = headers(good[0])
    world.send(good[:10])
    poison = [
        (b"north:1", b"\x00\xff", usual, "stock-changed: value: is not JSON"),
        (b"north:1", b'{"region":"north"}', usual, "stock-changed: field sku: object missing required field"),
        (b"north:1", None, usual, "stock-changed: value: is not JSON"),
        (b"north:1", b"{}", [("type", b"stock-burnt"), ("version", b"1")], "header type: 'stock-burnt' is none of"),
        (b"north:1", b"{}", [], "header type: is missing"),
        (b"mars:1", b"{}", usual, "key: b'mars:1' names no region of regions.toml"),
        (None, b"{}", usual, "key: None names no region"),
        (b"north:2", encode(_stock(sku="1")), usual, "key: b'north:2' is not that of the value, b'north:1'"),
        (b"north:1", b"[" * 950_000, usual, "(its value of 950000 bytes is left where it is)"),
    ]
    for key, value, beside, _ in poison:
        world.send_raw("inventory", key, value, beside)
    world.send(good[10:])
    world.projecting("north")
    world.projecting("south")
    world.wait()
    letters = world.letters(len(poison))
    assert len(letters) == len(poison)
    for key, value, _, reason in poison:
        kept = value if len(value or b"") < 900_000 else None
        same = [letter for letter in letters if (letter.key, letter.value) == (key, kept)]
        (found,) = [letter for letter in same if reason in letter.reason]
        assert found.topic == f"{world.settings.topic_prefix}inventory"
        assert found.offset >= 0
    assert sum(world.places().values()) == 20 + len(poison)
    shown = tandem(world.settings, "streams", "dead-letters").output
    assert shown.count("\n") == len(poison)
    assert "  mars:1  key: b'mars:1' names no region of regions.toml" in shown


def test_a_later_version_is_taken_and_a_type_of_the_future_put_aside(world: World) -> None:
    later = {**msgspec.to_builtins(_stock(stock=42)), "warehouse": "w1", "lots": [{"id": 1}]}
    world.send_raw("inventory", b"north:1", encode(later), [("type", b"stock-changed"), ("version", b"2")])
    world.send_raw("inventory", b"north:1", b"{}", [("type", b"stock-forecast"), ("version", b"1")])
    world.projecting()
    until(lambda: world.state().get("1") is not None)
    assert world.state()["1"].stock == 42
    assert [letter.reason[:30] for letter in world.letters(1)] == ["header type: 'stock-forecast' "]


def test_a_clock_that_runs_ahead_poisons_neither_ages_nor_sequences(world: World) -> None:
    now, future = datetime.now(UTC), datetime.now(UTC) + timedelta(days=400)
    ahead = int(future.timestamp() * 1e6)
    for change in (
        _stock(stock=5, at=now),
        _stock(stock=6, at=future, sequence=_micros(now) + 1),
        _stock(stock=7, at=now, sequence=ahead),
        _stock(stock=8, at=now - timedelta(days=2), sequence=_micros(now) + 2),
    ):
        world.send_raw("inventory", change.key, encode(change), headers(change))
    world.projecting()
    until(lambda: world.state().get("1") is not None and world.state()["1"].stock == 8)
    reasons = sorted(letter.reason for letter in world.letters(2))
    assert [reason[:27] for reason in reasons] == ["stock-changed: field at: is", "stock-changed: field sequen"]
    with redis.Redis.from_url(world.urls["north"]) as client:
        assert int(client.hget(region_store.LIVE_AGES, "stock")) <= time.time() * 1000  # type: ignore[arg-type]


def _micros(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


def _stock(*, sku: str = "1", stock: int = 1, at: datetime | None = None, sequence: int = 0) -> StockChanged:
    at = at or datetime.now(UTC)
    return StockChanged(region="north", sku=sku, stock=stock, sequence=sequence or _micros(at), at=at)


def test_messages_that_the_broker_dropped_too_early_are_an_error_until_someone_accepts_the_gap(world: World) -> None:
    projecting = world.projecting()
    world.send(world.changes(300))
    world.wait()
    assert projecting.kill(signal.SIGTERM) == 0
    world.send(world.changes(200))
    dropped = drop_all(world)
    projecting.start()
    assert projecting.process is not None
    assert projecting.process.wait(60) == 1
    assert re.search(r"messages from \d+ on are needed, but the broker kept only those from \d+ on", projecting.said)
    accepting = world.projecting("north", "--from-earliest")
    until(lambda: "reads 12 partitions" in accepting.said)
    after = world.changes(50)
    world.send(after)
    until(lambda: sum(world.places().values()) == 550)
    print(f"{dropped} dropped by the broker: an error, then accepted; {len(after)} sent afterwards are in")


def drop_all(world: World) -> int:
    """Have the broker drop what it holds, as a retention that is too short does; gives how many were not read yet."""
    admin = AdminClient({"bootstrap.servers": world.settings.kafka})
    names = [broker.called(world.settings, topic) for topic in TOPICS]
    parts = [TopicPartition(name, number) for name in names for number in range(INVENTORY.partitions)]
    ends = admin.list_offsets({part: OffsetSpec.latest() for part in parts})
    found = [TopicPartition(part.topic, part.partition, end.result().offset) for part, end in ends.items()]
    for done in admin.delete_records(found).values():
        done.result()
    return sum(part.offset for part in found) - sum(world.places().values())
