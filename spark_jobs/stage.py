"""A release into a region's Redis and its object store: one job, in which each task writes the shards that fall to it.

A task reads the lake's files as Arrow, keeps the rows of its shards, and makes lists, bundles and a file of them, a
shard at a time. It reads back the files that it wrote; `RegionStore.verify` reads back what is in Redis.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from cdn import keys, shards
from cdn.files import File
from cdn.manifest import Manifest
from cdn.store import ObjectStore
from edge_service.region_payloads import Buckets
from edge_service.region_store import RegionStore, Staged, batches
from spark_jobs import in_tasks, release_rows
from spark_jobs.parquet_files import Held
from spark_jobs.region_build import RegionBuild
from spark_jobs.release_switch import object_store
from tandem import segments
from tandem.bundle import AnchorList, Bundle
from tandem.regions import Region
from tandem.segments import ALL, EVERYONE
from tandem.settings import Settings
from warehouse import ledger

LISTING_BYTES = 60
"""About what one place in a list adds to a compressed shard, its share of bundles and products included."""
ROWS_A_TASK = 1_000_000
"""Lists and bundles that a task holds at most, about half a kilobyte each: where there are more, there are more
tasks than `shuffle_partitions`, each of which reads all rows once."""
SEARCHED = 20_000
"""Products in the search list at most, a megabyte or so: those bought most. The driver is sent twice as many."""
FILES_AT_ONCE = 8
"""Shards that a task makes before it writes their files and reads them back, all at the same time."""


class Rows(NamedTuple):
    """How many a release is made from, as the files say."""

    lists: int
    bundles: int


@dataclass(frozen=True)
class Work:
    """What a task needs; it travels to the executors, so that the session is not in it."""

    settings: Settings
    region: Region
    release_id: str
    lists: Held
    bundles: Held
    products: Held
    shard_count: int
    rows: Rows
    fence: int | None = None
    """Of the publisher that the tasks write for."""

    @property
    def parts(self) -> int:
        """Tasks. Part `n` has the shards `n`, `n + parts`, …"""
        enough = -(-(self.rows.lists + self.rows.bundles) // ROWS_A_TASK)
        return min(max(self.settings.shuffle_partitions, enough), self.shard_count)

    @property
    def slow_region(self) -> Region:
        """The region as one of the tasks at work may write to it: each has its share of the rate."""
        rate, at_once = self.region.push_per_second, min(self.settings.shuffle_partitions, self.parts)
        return msgspec.structs.replace(self.region, push_per_second=rate and max(1, rate // at_once))


@dataclass(frozen=True)
class Content:
    """What a shard holds: lists of its anchors; bundles with one of its anchors, and all products of these."""

    lists: list[AnchorList]
    bundles: dict[str, Bundle]
    products: dict[str, shards.Product]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What a task has written of a shard."""

    number: int
    sha: str
    staged: Staged
    anchors: int
    segments: list[str]
    """Those with lists."""
    searched: list[tuple[int, shards.Product]]
    """Orders and product of those of its anchors that may be in the search list."""


def stage(build: RegionBuild) -> tuple[Staged, Manifest]:
    """Write all of a release where nobody looks yet; gives what Redis should hold now, and the manifest of the files.

    Raises Damaged where a file does not read back as it was written, Unavailable where a server can't be reached.
    """
    store = object_store(build.settings, build.region)
    store.ensure_bucket()
    work = planned(build)
    with RegionStore(build.region, build.fence) as redis:
        redis.begin(build.release_id, Buckets.of(work.shard_count, *work.rows))
    written = in_tasks.values(in_tasks.each(build.spark, range(work.parts), _writer(work), in_tasks.VALUE))
    staged = Staged(
        anchors=sum(each.staged.anchors for each in written),
        bundles=sum(each.staged.bundles for each in written),
        digest=sum(each.staged.digest for each in written) % 2**64,
    )
    return staged, _told(build, work.shard_count, store, written)


def planned(build: RegionBuild) -> Work:
    """The work, in as many shards as give each about `shards.TARGET_BYTES`: the same rows give the same number."""
    lists, bundles, products = build.of_day("bundle_sets"), build.of_day("bundles"), build.fact("products")
    count = shard_count(lists)
    rows = Rows(lists.values("anchor"), bundles.values("bundle_id"))
    return Work(build.settings, build.region, build.release_id, lists, bundles, products, count, rows, build.fence)


def shard_count(lists: Held) -> int:
    """Shards for these lists; by what places add, so that it takes no reading of them."""
    return shards.shard_count(LISTING_BYTES * lists.values("bundles.bundle_id"))


def contents(work: Work, part: int) -> Iterator[tuple[int, Content]]:
    """What each shard of a part holds. In memory are the part's rows, and one shard's lists and bundles."""
    numbers = range(part, work.shard_count, work.parts)
    lists = _rows(work, part, work.lists, release_rows.LIST_COLUMNS, release_rows.anchors)
    bundles = _rows(work, part, work.bundles, release_rows.BUNDLE_COLUMNS, release_rows.components)
    named = {number: release_rows.skus(lists[number], bundles[number]) for number in numbers}
    wanted = pc.unique(pa.concat_arrays(list(named.values())))
    read = work.products.read(release_rows.PRODUCT_COLUMNS)
    known = [rows.filter(pc.is_in(rows["sku"], wanted)) for rows in read]
    for number in numbers:
        products = [rows.filter(pc.is_in(rows["sku"], named[number])) for rows in known]
        yield number, _content(lists.pop(number, []), bundles.pop(number, []), products)


def _rows(
    work: Work, part: int, source: Held, columns: list[str], skus: Callable[[pa.Table], release_rows.Named]
) -> dict[int, list[pa.Table]]:
    """The rows of a source by shard, of a part's shards: each row to every shard of one of its `skus`."""
    found: dict[int, list[pa.Table]] = defaultdict(list)
    for rows in source.read(columns):
        row, sku = skus(rows)
        shard = release_rows.shards_of(sku, work.shard_count)
        mine = shard % work.parts == part
        for number, some in release_rows.by_shard(rows, row[mine], shard[mine]):
            found[number].append(some)
    return found


def _content(lists: list[pa.Table], bundles: list[pa.Table], products: list[pa.Table]) -> Content:
    bodies, told = release_rows.bundles(pa.concat_tables(bundles)) if bundles else ({}, {})
    found = release_rows.lists(pa.concat_tables(lists), told, bodies) if lists else []
    known = release_rows.products(pa.concat_tables(products)) if products else {}
    return Content(found, bodies, known)


def _writer(work: Work) -> Callable[[Iterator[int]], Iterator[pa.RecordBatch]]:
    def write(parts: Iterator[int]) -> Iterator[pa.RecordBatch]:
        store = object_store(work.settings, work.region)
        with RegionStore(work.slow_region, work.fence) as redis:
            for part in parts:
                yield in_tasks.given(_write(work, part, redis, store))

    return write


def _write(work: Work, part: int, redis: RegionStore, store: ObjectStore) -> Iterator[Written]:
    """Write the shards of a part: each to Redis as soon as it is made, the files of some together."""
    region, release = work.region.name, work.release_id
    there = store.keys_of(region, release)
    made = (_made(work, number, content, redis) for number, content in contents(work, part))
    for some in batches(made, FILES_AT_ONCE):
        files = {keys.shard_key(region, release, each.number): file for each, file in some}
        store.put_release(region, release, files, there)
        store.check((key, file.sha) for key, file in files.items())
        yield from (each for each, _ in some)


def _made(work: Work, number: int, content: Content, redis: RegionStore) -> tuple[Written, File]:
    """A shard's file, with its lists, and the bodies whose first component is of it, in Redis."""
    own = (each for each in content.bundles.values() if _first(each, work.shard_count) == number)
    staged = redis.stage(work.release_id, own, content.lists)
    file = shards.shard_file(
        work.region.name, work.release_id, number, work.shard_count, content.products, content.bundles, content.lists
    )
    anchors = {ranked.anchor for ranked in content.lists}
    written = Written(
        number=number,
        sha=file.sha,
        staged=staged,
        anchors=len(anchors),
        segments=sorted({ranked.segment for ranked in content.lists}),
        searched=_searched(content, 2 * -(-SEARCHED // work.shard_count)),
    )
    return written, file


def _searched(content: Content, most: int) -> list[tuple[int, shards.Product]]:
    """The `most` anchors of a shard whose best sold bundle was in most orders, of those that the catalogue has."""
    orders: dict[str, int] = defaultdict(int)
    for ranked in content.lists:
        told = (content.bundles[place.bundle_id].orders_together for place in ranked.bundles)
        orders[ranked.anchor] = max([orders[ranked.anchor], *told])
    return _most_bought(
        [(count, content.products[sku]) for sku, count in orders.items() if sku in content.products], most
    )


def _most_bought(found: Iterable[tuple[int, shards.Product]], most: int) -> list[tuple[int, shards.Product]]:
    """The first `most` by orders, then SKU."""
    return heapq.nsmallest(most, found, key=lambda pair: (-pair[0], pair[1].sku))


def _first(bundle: Bundle, shard_count: int) -> int:
    return keys.shard_of(bundle.components[0].sku, shard_count)


def _told(build: RegionBuild, shard_count: int, store: ObjectStore, written: list[Written]) -> Manifest:
    """The manifest, kept beside the files, and the last of these: the search list."""
    region, release = build.region.name, build.release_id
    sums = {each.number: each.sha for each in written}
    searched = _most_bought((pair for each in written for pair in each.searched), SEARCHED)
    search = shards.search_file(region, release, (product for _, product in searched))
    store.put_release(region, release, {keys.search_key(region, release): search})
    store.check([(keys.search_key(region, release), search.sha)])
    manifest = Manifest(
        region=region,
        release=release,
        as_of=build.as_of.isoformat(),
        computed_at=_computed_at(build),
        currency=build.region.currency,
        segments=_segments(build, {segment for each in written for segment in each.segments}),
        shard_count=shard_count,
        shards=[sums[number] for number in range(shard_count)],
        search=search.sha,
        anchors=sum(each.anchors for each in written),
        bundles=sum(each.staged.bundles for each in written),
    )
    store.keep_manifest(manifest)
    return manifest


def _segments(build: RegionBuild, found: set[str]) -> list[str]:
    """The segments with lists of their own: those of segments.toml in its order, then learned ones, `everyone` last."""
    own = found - {ALL, EVERYONE}
    known = [name for name in segments.load(build.settings.config_folder).names if name in own]
    return [*known, *sorted(own - set(known)), EVERYONE]


def _computed_at(build: RegionBuild) -> str:
    """When this release was first staged, by the ledger: the same however often it is written again."""
    at = ledger.first(build.settings, build.region.name, build.release_id, "staged")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
