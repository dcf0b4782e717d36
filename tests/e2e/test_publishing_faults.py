"""Whatever breaks in a publish: readers see whole answers, the operator is told, and one command mends it."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import botocore.auth
import pytest
import redis

import cdn.store
from benchmarks import _releases
from benchmarks._publisher import Here, Publisher
from benchmarks._reader import Reader
from benchmarks._serving import Serving
from edge_service.lease import publishing
from edge_service.region_store import FENCE, RegionStore
from spark_jobs import publish, recovery, release_switch
from tandem import regions
from tandem.errors import TandemError, Unavailable
from tandem.regions import Region
from tandem.settings import Settings
from tests.conftest import RunningStore
from tests.e2e.proxies import LateProxy, RedisProxy, StoreProxy
from tests.edge_service.conftest import RedisProcess, region_at
from warehouse import ledger

pytestmark = [pytest.mark.servers, pytest.mark.e2e]
ANCHORS = 40
READS, PAUSE_SECONDS = 1_000, 0.2
"""Of somebody who reads from the first fault to the last."""
SPARK: Any = Here()


@dataclass
class World:
    """A region with a release, an edge that reads it, and proxies between publishers and servers."""

    settings: Settings
    region: Region
    server: RedisProcess
    redis: RedisProxy
    store: StoreProxy
    edge: Serving
    reader: Reader
    day: int = 2
    """The newest that readers see."""
    answers: int = 0
    said: list[str] = field(default_factory=list)

    def shown(self) -> str:
        """The release that an edge answers from; every answer that it takes to know is looked at."""
        address = f"{self.edge.address}/v1/{_releases.REGION}/bundles/{{}}?limit={_releases.PLACES}"
        names = set()
        for anchor in range(ANCHORS):
            with urllib.request.urlopen(address.format(_releases.sku(anchor)), timeout=10) as told:
                answer = _releases.decode_answer(told.read())
            assert answer.whole(), answer
            names.add(answer.release)
            self.answers += 1
        return max(names)

    def publish(self, day: int) -> None:
        publish.publish(SPARK, self.settings, _releases.day(day), _releases.REGION, self.said.append)

    def catch_up(self) -> None:
        recovery.catch_up(self.settings, lambda: SPARK, self.said.append)

    def state(self, day: int) -> str:
        return ledger.state(self.settings, _releases.REGION, _releases.release_id(day))

    @contextmanager
    def failing(self, what: str, kind: type[TandemError], match: str) -> Iterator[int]:
        """The next day is published, which fails; then readers still see what they saw, and the body mends it."""
        day, before = self.day + 1, self.answers
        start = time.perf_counter()
        with pytest.raises(kind, match=match) as told:
            self.publish(day)
        noticed = time.perf_counter() - start
        assert self.shown() == _releases.release_id(self.day)
        start = time.perf_counter()
        yield day
        mended = time.perf_counter() - start
        self.day = day
        self.whole()
        print(
            f"\n{what}: noticed after {noticed:.1f} s: {told.value}; "
            f"readers: {self.answers - before} answers, mixed 0; mended in {mended:.1f} s"
        )

    def whole(self) -> None:
        """Redis, CDN, ledger and edge agree on the day, and all of it is there."""
        release = _releases.release_id(self.day)
        assert ledger.current(self.settings, _releases.REGION) == release
        with RegionStore(self.region) as store:
            meta, found = store.sealed(release), store.verify(release)
            assert store.current() == release
        assert meta is not None
        assert (meta.anchors, meta.bundles) == (found.anchors, found.bundles) == (ANCHORS, 2 * ANCHORS)
        files = release_switch.object_store(self.settings, self.region)
        manifest = files.manifest(_releases.REGION)
        assert manifest is not None
        assert manifest.release == release
        files.verify(_releases.REGION, release, manifest)
        end = time.monotonic() + 10
        while self.shown() != release and time.monotonic() < end:
            time.sleep(0.05)
        assert self.shown() == release


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, object_store: RunningStore) -> Iterator[World]:
    home = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack:
        server = RedisProcess(tmp_path_factory.mktemp("redis"))
        server.start()
        stack.callback(server.stop)
        to_redis = RedisProxy(server.port)
        to_store = StoreProxy(int(object_store.store.endpoint.rpartition(":")[2]))
        stack.callback(to_redis.close)
        stack.callback(to_store.close)
        where = regions.ObjectStore(
            endpoint=f"http://127.0.0.1:{to_store.port}", bucket="tandem", public_url=object_store.store.public_url
        )
        keys = {"s3_access_key": object_store.access_key, "s3_secret_key": object_store.secret_key}
        url = f"redis://127.0.0.1:{to_redis.port}/0"
        settings = _releases.made(Settings(home=home, **keys), url, where, range(1, 20), ANCHORS)
        region = regions.load(settings.config_folder).get(_releases.REGION)
        for day in (1, 2):
            publish.publish(SPARK, settings, _releases.day(day), _releases.REGION, str)
        edge = stack.enter_context(Serving(settings))
        reader = Reader(edge.port, ANCHORS, object_store.store.public_url, READS, PAUSE_SECONDS)
        yield World(settings, region, server, to_redis, to_store, edge, reader)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two tries at the object store instead of four, and a lease of a second instead of fifteen."""
    for module in (publish, recovery):
        monkeypatch.setattr(module, "publishing", partial(publishing, seconds=1.0))
    monkeypatch.setattr(cdn.store, "ATTEMPTS", 2)
    cdn.store._client.cache_clear()
    yield
    cdn.store._client.cache_clear()


@contextmanager
def waiting_a_second() -> Iterator[None]:
    """For answers of the object store, instead of twenty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cdn.store, "READ_SECONDS", 1)
        cdn.store._client.cache_clear()
        yield
    cdn.store._client.cache_clear()


def command(world: World, *words: str) -> None:
    with redis.Redis.from_url(world.server.url) as client:
        client.execute_command(*words)


def restart(world: World) -> None:
    world.server.stop()
    world.server.start()


def test_a_connection_that_is_cut_in_the_middle_of_a_push(world: World) -> None:
    world.redis.then, world.redis.cut = (lambda: None), True
    with world.failing("connection cut", Unavailable, "can't serve") as day:
        world.redis.cut = False
        assert world.state(day) == "degraded"
        world.catch_up()


def test_redis_out_of_memory_in_the_middle_of_a_push(world: World) -> None:
    world.redis.then = lambda: command(world, "CONFIG", "SET", "maxmemory", "1")
    with world.failing("Redis full", Unavailable, "is full; give it more maxmemory") as day:
        assert world.state(day) == "degraded"
        with RegionStore(world.region) as store:
            assert not store.holds(_releases.release_id(day)), "live values need the room"
        back = _releases.release_id(world.day - 1)
        release_switch.rollback(world.settings, _releases.REGION, "also bad", str, to=back)
        end = time.monotonic() + 10
        while world.shown() != back and time.monotonic() < end:
            time.sleep(0.05)
        assert world.shown() == back, "a rollback needs no memory"
        command(world, "CONFIG", "SET", "maxmemory", "0")
        world.catch_up()


def test_redis_that_becomes_read_only_in_the_middle_of_a_push(world: World) -> None:
    world.redis.then = lambda: command(world, "REPLICAOF", "127.0.0.1", "1")
    with world.failing("Redis read-only", Unavailable, "can't serve .*read only replica") as day:
        assert world.state(day) == "degraded"
        command(world, "REPLICAOF", "NO", "ONE")
        world.catch_up()


def test_redis_restarted_empty_in_the_middle_of_a_push(world: World) -> None:
    world.redis.then = lambda: restart(world)
    with world.failing("Redis restarted empty", TandemError, "can't serve|lost its data") as day:
        recovery.rebuild(world.settings, lambda: SPARK, _releases.REGION, str)
        world.whole()
        world.publish(day)


@pytest.mark.parametrize(
    ("fault", "hit", "kind", "match"),
    [
        ("503", b"PUT", Unavailable, r"cannot answer now \(SlowDown|503\); try again"),
        ("silent", b"PUT", Unavailable, "cannot be reached .*start it and try again"),
        ("cut", b"PUT", Unavailable, "cannot be reached .*start it and try again"),
        ("truncated", b".json", TandemError, "cannot be reached|is damaged"),
        ("truncated", b"list-type", Unavailable, "cannot answer now"),
        ("changed", b".json", TandemError, "is damaged|has checksum"),
    ],
)
def test_an_object_store_that_answers_with(
    world: World, fault: str, hit: bytes, kind: type[TandemError], match: str
) -> None:
    with ExitStack() as stack:
        stack.enter_context(world.store.doing(fault, hit))
        if fault == "silent":
            stack.enter_context(waiting_a_second())
        with world.failing(f"object store: {fault}", kind, match) as day:
            assert world.store.count > 0
            stack.close()
            if world.state(day) == "degraded":
                world.catch_up()
            else:
                world.publish(day)


def test_an_object_store_that_is_slow_delays_a_release_and_nothing_else(world: World) -> None:
    with world.store.doing("late"):
        start = time.perf_counter()
        world.publish(world.day + 1)
    world.day += 1
    world.whole()
    print(f"\nobject store slow by 0.2 s a request: published in {time.perf_counter() - start:.1f} s")


def test_a_rollback_with_the_object_store_away(world: World) -> None:
    back, bad = _releases.release_id(world.day - 1), world.day
    with world.store.doing("503"), pytest.raises(Unavailable, match="cannot answer now"):
        release_switch.rollback(world.settings, _releases.REGION, "prices", str)
    with RegionStore(world.region) as store:
        assert store.current() == back, "the edge goes back at once"
    release_switch.rollback(world.settings, _releases.REGION, "prices", str)
    world.day -= 1
    world.whole()
    assert world.state(bad) == "quarantined"
    world.publish(bad + 1)
    world.day = bad + 1
    world.whole()


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_publisher_whose_clock_is_an_hour_off(world: World, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """A publish reads its machine's clock for the ledger, for what it signs, and to say that it is wrong."""

    class Off(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(hours=hours)

    real = botocore.auth.get_current_datetime
    with monkeypatch.context() as patch:
        for module in (ledger, cdn.store):
            patch.setattr(module, "datetime", Off)
        patch.setattr(botocore.auth, "get_current_datetime", lambda **how: real(**how) + timedelta(hours=hours))
        with world.failing(f"clock {hours:+} h", TandemError, "clock is 1:00:00 (ahead of|behind)") as day:
            patch.undo()
            world.publish(day)
    rows = [row for row in ledger.latest(world.settings) if row["region"] == _releases.REGION]
    assert [row["state"] for row in rows].count("current") == 1


def test_two_publishers_at_once(world: World) -> None:
    days = [world.day + 1, world.day + 2]
    with Publisher(world.settings, 5.0) as one, Publisher(world.settings, 5.0) as other:
        ended: list[Any] = []
        threads = [
            threading.Thread(target=lambda who=who, day=day: ended.append(who.publish(day)))
            for who, day in zip((one, other), days, strict=True)
        ]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            world.shown()
        seconds = time.perf_counter() - start
    assert [(each.code, each.said) for each in ended] == [(0, "")] * 2
    states = {world.state(day): day for day in days}
    assert set(states) == {"current", "backup"}
    world.day = states["current"]
    world.whole()
    print(f"\ntwo publishers at once: both done after {seconds:.1f} s, {world.answers} answers so far, mixed 0")
    if world.day != days[-1]:
        world.publish(days[-1] + 1)
        world.day = days[-1] + 1


def test_who_read_all_the_while_saw_nothing_mixed_and_nothing_missing(world: World) -> None:
    with world.reader:
        pass
    counts = world.reader.counts
    print(f"\nfrom the first fault to the last: {counts}")
    assert counts.answers >= READS
    assert counts.releases > 5
    assert (counts.mixed, counts.refused, counts.damaged) == (0, 0, 0)


def test_a_replica_that_takes_over_knows_the_newest_publisher(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The replica is 0.2 s behind; without waiting for it the grant would be lost."""
    primary = RedisProcess(tmp_path_factory.mktemp("primary"))
    primary.start()
    proxy = LateProxy(primary.port)
    replica = RedisProcess(tmp_path_factory.mktemp("replica"), "--replicaof", "127.0.0.1", str(proxy.port))
    replica.start()
    try:
        with redis.Redis.from_url(replica.url) as client:
            end = time.monotonic() + 20
            while client.info("replication")["master_link_status"] != "up" and time.monotonic() < end:
                time.sleep(0.05)
            proxy.seconds = 0.2
            with publishing(region_at(primary.url), print) as store:
                fence = store.fence
                primary.stop()
                client.execute_command("REPLICAOF", "NO", "ONE")
                assert client.get(FENCE) == str(fence).encode()
    finally:
        proxy.close()
        replica.stop()
        primary.stop()
