"""A build reaches a real Redis and a real object store whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
import pytest
import redis

from edge_service.region_store import FENCE, LEASE, LIVE_SNAPSHOT, Fenced, RegionStore
from spark_jobs import build, lineage, publish, recovery, region_build, release_switch, seed_live, stage
from tandem import regions, release
from tandem.errors import TandemError, Unavailable
from tandem.regions import Region
from tandem.settings import Settings
from tests.commands import tandem
from tests.conftest import RunningStore
from tests.spark_jobs.small_shop import AS_OF, make
from warehouse import lake, ledger, vacuum
from warehouse.tables import PRICES

At = Callable[[str, RunningStore], Settings]
pytestmark = [pytest.mark.spark, pytest.mark.servers]


@pytest.fixture(scope="module")
def published(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> At:
    """A built small shop, whose regions both are at the given servers."""
    folder = tmp_path_factory.mktemp("published")
    made: list[Settings] = []

    def at(redis_url: str, running: RunningStore) -> Settings:
        if not made:
            settings = make(folder, redis_url, running.store.endpoint)
            made.append(
                Settings(
                    home=settings.home,
                    config=settings.config,
                    s3_access_key=running.access_key,
                    s3_secret_key=running.secret_key,
                )
            )
            for name in build.JOBS:
                if name != "evaluation":
                    build.run_job(spark, made[0], name, AS_OF)
        return made[0]

    return at


def north(settings: Settings) -> Region:
    return regions.load(settings.config_folder).get("north")


def content(url: str) -> dict[bytes, Any]:
    """Every key of a release, with its value: all but who may publish, and how often it was brought."""
    with redis.Redis.from_url(url) as client:
        keys = [key for key in client.scan_iter("tandem:*") if client.type(key) in (b"hash", b"string")]
        keys = [key for key in keys if key not in (LEASE.encode(), FENCE.encode(), LIVE_SNAPSHOT.encode())]
        return {key: client.hgetall(key) if client.type(key) == b"hash" else client.get(key) for key in keys}


def spelled(keys: lineage.Keys) -> list[str]:
    return [keys.key.replace("{bucket}", str(number)) for number in range(keys.count)]


def rules(settings: Settings, discount: int) -> None:
    """Another configuration, and so another release."""
    path = settings.config_folder / "rules.toml"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "max_discount_bps" not in line]
    path.write_text("\n".join([*lines, f"max_discount_bps = {discount}"]), encoding="utf-8")


def test_a_release_goes_to_redis_and_cdn_and_back_again(
    spark: Any,
    published: At,
    redis_url: str,
    object_store: RunningStore,
    monkeypatch: pytest.MonkeyPatch,
):
    settings = published(redis_url, object_store)
    said: list[str] = []
    publish.publish(spark, settings, AS_OF, "north", said.append)
    region = north(settings)
    first = ledger.current(settings, "north")
    cdn = release_switch.object_store(settings, region)
    with RegionStore(region) as store:
        assert store.current() == first
        meta = store.sealed(str(first))
        found = store.verify(str(first))
    assert meta is not None
    assert (meta.anchors, meta.bundles) == (found.anchors, found.bundles)
    assert meta.checksum == release.checksum([found.digest])
    manifest = cdn.manifest("north")
    assert manifest is not None
    assert manifest.release == first
    cdn.verify("north", str(first), manifest)
    states = [row["state"] for row in ledger.latest(settings)]
    assert states == ["current"]

    # Again: nothing changes, not one byte.
    before = content(redis_url)
    publish.publish(spark, settings, AS_OF, "north", said.append)
    assert content(redis_url) == before

    # Tasks of a publisher that was taken over from write nothing.
    stale = replace(region_build.found(spark, settings, AS_OF, region), fence=1)
    for write in (stage.stage, seed_live.seed):
        with pytest.raises(Fenced, match="a newer publisher took over"):
            write(stale)
    assert content(redis_url) == before

    # Redis lost altogether: the same command brings back the same bytes.
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    publish.publish(spark, settings, AS_OF, "north", said.append)
    assert content(redis_url) == before

    # Sealed by an earlier version: the same command stages it anew.
    with redis.Redis.from_url(redis_url) as client:
        sealed = f"tandem:release:{first}:meta"
        client.set(sealed, client.get(sealed).replace(b'"format":2', b'"format":1'))
    publish.publish(spark, settings, AS_OF, "north", said.append)
    assert content(redis_url) == before

    # Without a backup there is nothing to go back to.
    with pytest.raises(release_switch.NoBackup, match="north"):
        release_switch.rollback(settings, "north", "test", said.append)

    # A second release that dies after Redis was staged is seen by nobody; run again, it goes through.
    rules(settings, 500)
    for name in ("bundles", "pricing"):
        build.run_job(spark, settings, name, AS_OF)
    real = stage._told

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_told", killed)
    with pytest.raises(KeyboardInterrupt):
        publish.publish(spark, settings, AS_OF, "north", said.append)
    with RegionStore(region) as store:
        assert store.current() == first
    monkeypatch.setattr(stage, "_told", real)

    # What lies there and is of other rows is found and removed, and the next attempt goes through.
    with redis.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter("tandem:release:*:lists:*"))
        client.hset(next(key for key in keys if str(first).encode() not in key), "*\x1fa stray", b"")
    with pytest.raises(TandemError, match="read back; publish it again"):
        publish.publish(spark, settings, AS_OF, "north", said.append)
    publish.publish(spark, settings, AS_OF, "north", said.append)
    second = ledger.current(settings, "north")
    assert second != first
    assert ledger.backup(settings, "north") == first

    # Delta's own VACUUM refuses to go as far as releases need, and ours leaves what they came from.
    prices = f"delta.`{settings.lake_root}/prices`"
    with pytest.raises(Exception, match="retention"):
        spark.sql(f"VACUUM {prices} RETAIN 0 HOURS")
    pinned, newest = lake.versions(settings), lake.open_table(settings, "prices").to_pyarrow_table()
    lake.replace(settings, PRICES, newest.set_column(2, "list_price_cents", pc.add(newest["list_price_cents"], 1)))
    lake.replace(settings, PRICES, newest)
    assert vacuum.run(settings, [], said.append, hours=0, delete=True) > 0
    assert vacuum.run(settings, [], said.append, hours=0) == 0
    told = lineage.of(settings, str(first))
    assert {fact.table: fact.version for fact in told.facts} == pinned
    assert [keys.count for keys in told.regions[0].cdn] == [manifest.shard_count, 1, 1]
    redis_keys = {key.decode() for key in content(redis_url)}
    assert {key for each in told.regions[0].redis for key in spelled(each)} >= {
        key for key in redis_keys if str(first) in key
    }

    # Redis lost again: the backup comes back too, though its day was built anew since, and so do the pointers.
    whole = content(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    rebuilt = tandem(settings, "rebuild", "--region", "north")
    assert rebuilt.output.endswith(f"north: rebuilt: {second} is current, {first} is the backup\n"), rebuilt.output
    assert content(redis_url) == whole

    # Back: Redis, CDN and ledger agree, and the bad one is never published again.
    release_switch.rollback(settings, "north", "prices were wrong", said.append)
    with RegionStore(region) as store:
        assert store.current() == first
    shown = cdn.manifest("north")
    assert shown is not None
    assert shown.release == first
    assert ledger.state(settings, "north", str(second)) == "quarantined"
    with pytest.raises(release.WrongTransition, match="quarantined"):
        publish.publish(spark, settings, AS_OF, "north", said.append)
    build.stage(settings, AS_OF, "north", said.append, spark=spark)
    assert said[-1].startswith(f"north: left out: release {second} is quarantined")


def test_a_region_out_of_reach_holds_nobody_up_and_is_named(
    spark: Any, published: At, redis_url: str, object_store: RunningStore
):
    settings = published(redis_url, object_store)
    path = settings.config_folder / "regions.toml"
    there = path.read_text(encoding="utf-8")
    head, _, tail = there.rpartition(redis_url)
    path.write_text(f"{head}redis://127.0.0.1:1/0{tail}", encoding="utf-8")
    rules(settings, 700)
    for name in ("bundles", "pricing"):
        build.run_job(spark, settings, name, AS_OF)
    said: list[str] = []
    with pytest.raises(Unavailable, match="not published to south"):
        publish.everywhere(spark, settings, AS_OF, said.append)
    with RegionStore(north(settings)) as store:
        assert store.current() == ledger.current(settings, "north")
    assert ledger.current(settings, "south") is None
    assert any("south: region south: Redis at" in line for line in said)
    (row,) = [row for row in ledger.latest(settings) if row["region"] == "south"]
    assert row["state"] == "degraded"
    assert "can't serve" in row["reason"]

    # Still away: it stays degraded. Back: it goes straight to the newest.
    with pytest.raises(Unavailable, match="still out of reach: south"):
        recovery.catch_up(settings, lambda: spark, said.append)
    path.write_text(f"{head}{redis_url.removesuffix('0')}1{tail}", encoding="utf-8")
    recovery.catch_up(settings, lambda: spark, said.append)
    newest = ledger.current(settings, "north")
    with RegionStore(regions.load(settings.config_folder).get("south")) as store:
        assert store.current() == ledger.current(settings, "south") == newest
    recovery.catch_up(settings, lambda: pytest.fail("nothing is missed: Spark need not start"), said.append)
    assert said[-1] == "south: has not missed a release"


def test_publishing_a_day_that_was_never_built_says_what_to_run(spark: Any, built: Settings):
    with pytest.raises(TandemError, match="run tandem build --as-of 2001-01-01"):
        publish.publish(spark, built, AS_OF.replace(year=2001, month=1), "north", print)
