"""The region's Redis as publishers use it."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import redis

from edge_service import region_payloads, region_store
from edge_service.region_payloads import Buckets, Staged
from edge_service.region_store import Applied, Delta, InUse, LiveRow, NotSealed, RegionStore, ReleaseMeta
from tandem.bundle import AnchorList, Bundle, Component, Listed, Substitute, bundle_id
from tandem.errors import Unavailable
from tandem.offer import Live
from tandem.release import checksum
from tests.edge_service import conftest
from tests.edge_service.conftest import RedisProcess, region_at

pytestmark = pytest.mark.servers

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def content(count: int = 40) -> tuple[list[Bundle], list[AnchorList]]:
    """Bundles of two and their lists, for a segment and for the region."""
    bundles = []
    for number in range(count):
        parts = (Component(f"a{number}", 1, 90), Component(f"b{number}", 2, None, (Substitute(f"c{number}", 5),)))
        name = bundle_id((part.sku, part.quantity) for part in parts)
        bundles.append(Bundle(id=name, components=parts, discount_bps=500, orders_together=12, lift=2.5))
    lists = [
        AnchorList(segment, f"a{number}", (Listed(bundle.id, 0.25, "region"),))
        for number, bundle in enumerate(bundles)
        for segment in ("*", "families")
    ]
    return bundles, lists


def publish(store: RegionStore, release_id: str, *, point: bool = True) -> ReleaseMeta:
    return conftest.publish(store, release_id, *content(), point=point)


def dump(store: RegionStore) -> dict[bytes, object]:
    """Every key and value but the streams."""
    with redis.Redis.from_url(store.region.redis_url) as client:
        kinds = {key: client.type(key) for key in client.scan_iter()}
        return {
            key: client.hgetall(key) if kind == b"hash" else client.get(key)
            for key, kind in kinds.items()
            if kind in (b"hash", b"string")
        }


def live(store: RegionStore, sku: str) -> Live | None:
    with redis.Redis.from_url(store.region.redis_url) as client:
        words = client.hget(region_store.LIVE, sku)
    return None if words is None else region_payloads.live_of(words)


def test_what_was_staged_is_found_again_and_adds_up_over_partitions(store: RegionStore) -> None:
    bundles, lists = content()
    parts = [store.stage("r1", bundles[n::3], lists[n::3]) for n in range(3)]
    found = store.verify("r1")
    assert found == (len(lists), len(bundles), sum(part.digest for part in parts) % 2**64)
    assert (found.anchors, found.bundles) == (sum(p.anchors for p in parts), sum(p.bundles for p in parts))


def test_staging_again_leaves_every_byte_as_it_was(store: RegionStore) -> None:
    publish(store, "r1")
    before = dump(store)
    assert store.stage("r1", *content()) == store.verify("r1")
    assert dump(store) == before


def test_the_same_content_has_the_same_digest_in_another_release(store: RegionStore) -> None:
    assert store.stage("r1", *content()) == store.stage("r2", *content())


def test_a_lost_entry_is_noticed_and_put_back(store: RegionStore) -> None:
    publish(store, "r1")
    whole, before = store.verify("r1"), dump(store)
    with redis.Redis.from_url(store.region.redis_url) as client:
        client.delete(next(iter(client.scan_iter("tandem:release:r1:bodies:*"))))
    assert store.verify("r1") != whole
    store.stage("r1", *content())
    assert dump(store) == before


def test_a_sealed_release_is_not_altered_by_other_content(store: RegionStore) -> None:
    meta = publish(store, "r1")
    bundles, lists = content()
    cheaper = [msgspec.structs.replace(bundle, discount_bps=9_000) for bundle in bundles]
    before = dump(store)
    staged = store.stage("r1", cheaper, lists)
    assert checksum([staged.digest]) != meta.checksum
    assert dump(store) == before
    with pytest.raises(InUse, match="is sealed with checksum"):
        store.seal("r1", msgspec.structs.replace(meta, checksum=checksum([staged.digest])))
    assert store.sealed("r1") == meta


def test_a_release_in_hashes_of_its_own_number_reads_back_and_is_deleted_whole(store: RegionStore) -> None:
    bundles, lists = content()
    store.begin("r1", Buckets(3, 9, 3))
    meta = publish(store, "r1", point=False)
    assert meta.buckets == Buckets(3, 9, 3)
    assert store.verify("r1") == store.stage("r2", bundles, lists)
    store.delete("r1")
    assert not any(key.startswith(b"tandem:release:r1:") for key in dump(store))


def test_what_another_attempt_left_stays_only_where_it_counted_alike(store: RegionStore) -> None:
    store.begin("r1", Buckets(1, 2, 3))
    store.stage("r1", *content())
    whole, before = store.verify("r1"), dump(store)
    store.begin("r1", Buckets(1, 2, 3))
    assert dump(store) == before
    store.begin("r1", Buckets(1, 1, 1))
    assert store.verify("r1") == Staged(0, 0, 0)
    assert store.stage("r1", *content()) == store.verify("r1") == whole


def test_a_sealed_release_keeps_its_hashes(store: RegionStore) -> None:
    publish(store, "r1")
    before = dump(store)
    store.begin("r1", Buckets(1, 1, 1))
    assert dump(store) == before


def test_a_release_that_an_earlier_version_sealed_is_staged_anew(store: RegionStore) -> None:
    meta = publish(store, "r1")
    with redis.Redis.from_url(store.region.redis_url) as client:
        client.set(region_store.META.format(release="r1"), msgspec.json.encode(msgspec.structs.replace(meta, format=1)))
    assert not store.whole("r1")
    store.begin("r1", meta.buckets)
    assert store.verify("r1") == Staged(0, 0, 0)
    assert publish(store, "r1") == meta
    assert store.whole("r1")


def test_an_unsealed_release_is_never_pointed_to(store: RegionStore) -> None:
    store.stage("r1", *content())
    with pytest.raises(NotSealed, match="region north: release r1 is not sealed"):
        store.switch("r1", None)
    assert store.current() is None


def test_a_switch_moves_both_pointers_and_twice_changes_nothing(store: RegionStore) -> None:
    for name in ("r1", "r2"):
        assert publish(store, name, point=False) == store.sealed(name)
    for _ in range(2):
        store.switch("r2", "r1")
        assert (store.current(), store.backup()) == ("r2", "r1")
    store.switch("r1", None)
    assert (store.current(), store.backup()) == ("r1", None)


def test_a_backup_that_is_not_whole_is_none(store: RegionStore) -> None:
    publish(store, "r1")
    publish(store, "r2")
    store.stage("r3", *content())
    store.switch("r2", "r3")
    assert (store.current(), store.backup()) == ("r2", None)


def test_deleting_spares_what_is_in_use_and_removes_every_key_of_the_rest(store: RegionStore) -> None:
    for name in ("r1", "r2", "r3"):
        publish(store, name)
    for name, state in (("r3", "current"), ("r2", "backup")):
        with pytest.raises(InUse, match=f"{name} is {state}"):
            store.delete(name)
    before = dump(store)
    assert store.delete("r1") == sum(key.startswith(b"tandem:release:r1:") for key in before)
    assert not any(key.startswith(b"tandem:release:r1:") for key in dump(store))
    assert store.verify("r1") == (0, 0, 0)
    assert store.delete("r1") == 0


def test_memory_is_freed_by_unlink_in_slices_and_others_are_served_between(store: RegionStore) -> None:
    bundles, lists = content(2_000)
    with redis.Redis.from_url(store.region.redis_url) as client:
        before = client.info("memory")["used_memory"]
        store.begin("r1", Buckets(1, 300, 300))
        conftest.publish(store, "r1", bundles, lists, point=False)
        assert client.info("memory")["used_memory"] > before + 200_000
        client.config_resetstat()
        removed = store.delete("r1")
        stats = client.info("commandstats")
        after = client.info("memory")["used_memory"]
    slices = -(-600 // region_store.BATCH_BUCKETS)
    assert removed > 500
    assert stats["cmdstat_unlink"]["calls"] == slices + 1, "and the buckets' own key"
    assert stats["cmdstat_eval"]["calls"] == slices + 2, "each a command of its own: others come between"
    assert stats["cmdstat_del"]["calls"] == 1, "the seal alone, which is small"
    assert after < before + 100_000


def test_an_older_or_equal_sequence_never_overwrites_a_newer_one(store: RegionStore) -> None:
    assert store.push([Delta(sku="a", sequence=5, at=NOON, stock=7)]) == Applied(1, 0)
    late = [Delta(sku="a", sequence=n, at=NOON + timedelta(days=1), stock=99) for n in (4, 5)]
    assert store.push(late) == Applied(0, 2)
    assert live(store, "a") == Live(stock=7, list_price=None)


def test_a_sale_ends_with_null_and_what_is_not_named_stays(store: RegionStore) -> None:
    store.push([Delta(sku="a", sequence=1, at=NOON, stock=3, list_price=500, sale_price=400)])
    store.push([Delta(sku="a", sequence=2, at=NOON, sale_price=None)])
    assert live(store, "a") == Live(stock=3, list_price=500, sale_price=None)


def test_any_order_with_duplicates_ends_in_the_state_of_the_right_order(store: RegionStore) -> None:
    rng = random.Random(7)
    deltas = []
    for sku, sequence in itertools.product("abcdefgh", range(1, 60)):
        kind = rng.choice(["stock", "list_price", "sale_price"])
        deltas.append(msgspec.convert({"sku": sku, "sequence": sequence, "at": NOON, kind: rng.randrange(1000)}, Delta))
    reference: dict[str, dict[str, int]] = {}
    for delta in deltas:
        named = {k: getattr(delta, k) for k in ("stock", "list_price", "sale_price")}
        reference.setdefault(delta.sku, {}).update({k: v for k, v in named.items() if v is not msgspec.UNSET})
    told = deltas + rng.sample(deltas, 50)
    rng.shuffle(told)
    store.push(told)
    for sku, values in reference.items():
        expected = Live(**{"stock": None, "list_price": None, **values})
        assert live(store, sku) == expected


def test_a_snapshot_yields_to_newer_changes_and_keeps_sequences(store: RegionStore) -> None:
    store.push(
        [
            Delta(sku="a", sequence=9, at=NOON, stock=1),
            Delta(sku="a", sequence=8, at=NOON, list_price=100, sale_price=None),
        ]
    )
    morning = NOON - timedelta(hours=6)
    rows = [LiveRow(sku="a", stock=50, list_price=900), LiveRow(sku="b", stock=4, list_price=10, sale_price=8)]
    assert store.seed_live(rows, morning) == 1
    assert live(store, "a") == Live(stock=1, list_price=100)
    assert live(store, "b") == Live(stock=4, list_price=10, sale_price=8)
    assert store.seed_live([LiveRow(sku="a", stock=60, list_price=900)], NOON + timedelta(hours=12)) == 1
    assert live(store, "a") == Live(stock=60, list_price=900)
    assert store.push([Delta(sku="a", sequence=9, at=NOON + timedelta(days=9), stock=3)]) == Applied(0, 1)


def test_the_first_change_of_a_product_wins_over_a_seeded_entry(store: RegionStore) -> None:
    store.seed_live([LiveRow(sku="a", stock=50)], NOON)
    assert store.push([Delta(sku="a", sequence=1, at=NOON - timedelta(hours=1), stock=2)]) == Applied(1, 0)
    assert live(store, "a") == Live(stock=2, list_price=None)


def test_a_snapshot_without_a_value_leaves_what_is_known(store: RegionStore) -> None:
    store.seed_live([LiveRow(sku="a", stock=5, list_price=100, sale_price=90)], NOON)
    store.seed_live([LiveRow(sku="a", list_price=120)], NOON + timedelta(days=1))
    assert live(store, "a") == Live(stock=5, list_price=120, sale_price=None)


def test_large_numbers_pass_unchanged(store: RegionStore) -> None:
    store.push([Delta(sku="a", sequence=2**53 - 2, at=NOON, list_price=10**12)])
    store.push([Delta(sku="a", sequence=2**53 - 1, at=NOON, stock=10**12)])
    assert live(store, "a") == Live(stock=10**12, list_price=10**12)


def test_a_region_that_is_down_is_named_with_its_address_and_without_its_password(own_redis: RedisProcess) -> None:
    region = region_at(own_redis.url.replace("redis://", "redis://:hunter2@"), "south")
    own_redis.stop()
    with (
        RegionStore(region) as store,
        pytest.raises(Unavailable, match=rf"region south.*127\.0\.0\.1:{own_redis.port}") as told,
    ):
        store.stage("r1", *content())
    assert "hunter2" not in str(told.value)
