"""A release into the object store behind the CDN: shards written by the tasks that hold them, and its manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from cdn import keys, shards
from cdn.manifest import Manifest
from spark_jobs.region_build import STORY, RegionBuild, anchor_list, bundle_of
from spark_jobs.release_switch import object_store
from tandem import segments
from tandem.bundle import AnchorList, Bundle
from tandem.segments import ALL, EVERYONE
from warehouse import ledger

LISTING_BYTES = 60
"""About what one place in a list adds to a compressed shard, its share of bundles and products included."""


def stage(build: RegionBuild, bundles: int) -> Manifest:
    """Write all files of the release, read them back, and give the manifest (kept beside them, shown to nobody yet)."""
    store = object_store(build.settings, build.region)
    store.ensure_bucket()
    lists = build.lists
    count = shards.shard_count(LISTING_BYTES * lists.select(F.sum(F.size("bundles"))).first()[0])
    rows = (
        _shard_rows(build, lists, count)
        .groupBy("shard")
        .applyInArrow(_shard_writer(build, count), "shard int, sha string")
    )
    written = {row.shard: row.sha for row in rows.collect()}
    search = shards.search_bytes(build.region.name, build.release_id, _anchors(build, lists))
    store.put_release(
        build.region.name, build.release_id, [(keys.search_key(build.region.name, build.release_id), search)]
    )
    empty = [number for number in range(count) if number not in written]
    written |= {number: _put_shard(build, count, number, {}, {}, []) for number in empty}
    manifest = Manifest(
        region=build.region.name,
        release=build.release_id,
        as_of=build.as_of.isoformat(),
        computed_at=_computed_at(build),
        currency=build.region.currency,
        segments=_segments(build, lists),
        shard_count=count,
        shards=[written[number] for number in range(count)],
        search=shards.digest(search),
        anchors=lists.select("anchor").distinct().count(),
        bundles=bundles,
    )
    store.verify(build.region.name, build.release_id, manifest)
    store.keep_manifest(manifest)
    return manifest


def _segments(build: RegionBuild, lists: DataFrame) -> list[str]:
    """The segments with lists of their own: those of segments.toml in its order, then learned ones, `everyone` last."""
    own = {row.segment for row in lists.select("segment").distinct().collect()} - {ALL, EVERYONE}
    known = [name for name in segments.load(build.settings.config_folder).names if name in own]
    return [*known, *sorted(own - set(known)), EVERYONE]


def _computed_at(build: RegionBuild) -> str:
    """When this release was first staged, by the ledger: the same however often it is written again."""
    at = ledger.first(build.settings, build.region.name, build.release_id, "staged")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shard_rows(build: RegionBuild, lists: DataFrame, count: int) -> DataFrame:
    """All that shards hold as rows of (shard, kind, text): lists, the bundles they name, the products of both."""
    sharded = lists.withColumn("shard", (F.crc32(F.col("anchor").cast("binary")) % count).cast("int"))
    named = sharded.select("shard", F.explode("bundles.bundle_id").alias("bundle_id")).distinct()
    bundles = named.join(build.bodies, "bundle_id")
    part = bundles.select("shard", F.explode("components").alias("part"))
    skus = (
        part.select("shard", "part.sku")
        .unionByName(part.select("shard", F.explode("part.substitutes.sku").alias("sku")))
        .unionByName(sharded.select("shard", F.col("anchor").alias("sku")))
        .distinct()
    )
    products = skus.join(_products(build), "sku")
    return (
        _texts("list", sharded, ["segment", "anchor", "bundles"])
        .unionByName(_texts("bundle", bundles, ["bundle_id", "components", *STORY]))
        .unionByName(_texts("product", products, ["sku", "title", "brand", "category", "image"]))
    )


def _texts(kind: str, rows: DataFrame, columns: list[str]) -> DataFrame:
    return rows.select("shard", F.lit(kind).alias("kind"), F.to_json(F.struct(*columns)).alias("text"))


def _products(build: RegionBuild) -> DataFrame:
    return build.fact("products").select("sku", "title", "brand", "category", F.col("image_url").alias("image"))


def _anchors(build: RegionBuild, lists: DataFrame) -> Iterator[shards.Product]:
    named = lists.select(F.col("anchor").alias("sku")).distinct().join(_products(build), "sku")
    return (shards.Product(**row.asDict()) for row in named.toLocalIterator())


def _shard_writer(build: RegionBuild, count: int) -> Callable[[tuple[pa.Scalar, ...], pa.Table], pa.Table]:
    # What travels to the executors must not hold the session.
    carried = RegionBuild(None, build.settings, build.region, build.as_of, build.release_id, build.inputs)  # type: ignore[arg-type]

    def write(key: tuple[pa.Scalar, ...], rows: pa.Table) -> pa.Table:
        number = key[0].as_py()
        held: dict[str, list[dict[str, object]]] = {"list": [], "bundle": [], "product": []}
        for kind, text in zip(rows["kind"].to_pylist(), rows["text"].to_pylist(), strict=True):
            held[kind].append(json.loads(text))
        bundles = {bundle.id: bundle for bundle in map(bundle_of, held["bundle"])}
        products = {str(row["sku"]): shards.Product(**row) for row in held["product"]}  # type: ignore[arg-type]
        sha = _put_shard(carried, count, number, products, bundles, [anchor_list(row) for row in held["list"]])
        return pa.table({"shard": pa.array([number], pa.int32()), "sha": [sha]})

    return write


def _put_shard(
    build: RegionBuild,
    count: int,
    number: int,
    products: dict[str, shards.Product],
    bundles: dict[str, Bundle],
    lists: list[AnchorList],
) -> str:
    """Write one shard; gives its checksum."""
    region, release_id = build.region.name, build.release_id
    body = shards.shard_bytes(region, release_id, number, count, products, bundles, lists)
    key = keys.shard_key(region, release_id, number)
    object_store(build.settings, build.region).put_release(region, release_id, [(key, body)])
    return shards.digest(body)
