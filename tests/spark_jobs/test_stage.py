"""Rows of a build as the shards of a release hold them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdn import shards
from cdn.files import GZIP
from cdn.keys import shard_of
from cdn.shards import Product
from cdn.store import Damaged
from spark_jobs import stage
from spark_jobs.in_tasks import collected
from spark_jobs.order_files import File, Folder
from spark_jobs.parquet_files import Held
from tandem import why
from tandem.bundle import AnchorList, Bundle, Component, Listed, Story, Substitute, bundle_id
from tandem.errors import TandemError, Unavailable
from tandem.regions import ObjectStore, Region
from tandem.settings import Settings
from tandem.why import Shaped, Why
from warehouse.tables import TABLES

TEA_CUP, TEA_POT = (bundle_id([("tea", 1), (other, 1)]) for other in ("cup", "pot"))
STORE = ObjectStore(endpoint="http://127.0.0.1:1", bucket="none", public_url="http://127.0.0.1:1/none")
REGION = Region(name="north", currency="USD", time_zone="UTC", redis_url="redis://127.0.0.1:1/0", object_store=STORE)


def bundle(segment: str, name: str, other: str, **told: Any) -> dict[str, Any]:
    parts = [
        {"sku": other, "quantity": 1, "floor_cents": None, "substitutes": []},
        {"sku": "tea", "quantity": 1, "floor_cents": 90, "substitutes": [{"sku": "mug", "floor_cents": 80}]},
    ]
    evidence = {"orders_together": told.get("orders", 30), "lift": told.get("lift", 2.504)}
    return {
        "segment": segment,
        "bundle_id": name,
        "components": parts,
        "discount_bps": 500,
        "evidence": evidence,
        "pricing": {"strategy": "profit", "reason": told.get("reason")},
        "rules": told.get("rules"),
    }


def ranked(segment: str, anchor: str, *names: str) -> dict[str, Any]:
    places = [{"bundle_id": name, "confidence": 0.123449, "matched": "region"} for name in names]
    return {"segment": segment, "anchor": anchor, "bundles": places}


BUNDLES = [
    bundle("families", TEA_CUP, "cup", orders=12, lift=4.0, reason="discounted"),
    bundle("*", TEA_CUP, "cup", reason="over_budget", rules=[{"line": 12, "action": "boost"}]),
    bundle("*", TEA_POT, "pot"),
]
LISTS = [
    ranked("*", "tea", TEA_CUP, TEA_POT),
    ranked("families", "tea", TEA_CUP),
    ranked("*", "cup", TEA_CUP),
    ranked("*", "pot", TEA_POT),
]
PRODUCTS = [
    {"sku": sku, "title": sku.title(), "brand": None, "category": "kitchen", "image_url": None}
    for sku in ("tea", "cup", "mug", "lid")
]


def source(folder: Path, rows: list[dict[str, Any]]) -> Held:
    """The rows in two files."""
    folder.mkdir(parents=True)
    for number in (0, 1):
        pq.write_table(pa.Table.from_pylist(rows, pa.Table.from_pylist(rows).schema)[number::2], folder / f"{number}")
    return Held(TABLES[folder.name], Folder(str(folder), {}), [File(f"{number}", 1, {}) for number in (0, 1)])


@pytest.fixture(params=[1, 2, 7])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> stage.Work:
    lists, bundles, products = (
        source(tmp_path / name, rows)
        for name, rows in (("bundle_sets", LISTS), ("bundles", BUNDLES), ("products", PRODUCTS))
    )
    settings = Settings(home=tmp_path, shuffle_partitions=3)
    return stage.Work(settings, REGION, "r1", lists, bundles, products, request.param, stage.Rows(4, 3))


def contents(work: stage.Work) -> Iterator[tuple[int, stage.Content]]:
    for part in range(work.parts):
        yield from stage.contents(work, part)


def test_every_shard_is_made_once_with_the_lists_of_its_anchors(work: stage.Work) -> None:
    held = dict(contents(work))
    assert sorted(held) == list(range(work.shard_count))
    found = {number: {(each.anchor, each.segment) for each in content.lists} for number, content in held.items()}
    wanted = {(row["anchor"], row["segment"]) for row in LISTS}
    assert found == {number: {key for key in wanted if shard_of(key[0], work.shard_count) == number} for number in held}


def test_a_shard_holds_all_that_its_lists_name(work: stage.Work) -> None:
    for _, content in contents(work):
        named = {place.bundle_id for each in content.lists for place in each.bundles}
        assert named <= set(content.bundles)
        skus = {part.sku for name in named for part in content.bundles[name].components} - {"pot"}
        assert skus | ({"mug"} if named else set()) <= set(content.products)
        assert "lid" not in content.products


def test_a_body_tells_the_regions_story_and_a_list_its_segments(work: stage.Work) -> None:
    held = dict(contents(work))[shard_of("tea", work.shard_count)]
    parts = (Component("cup", 1), Component("tea", 1, 90, (Substitute("mug", 80),)))
    shaped = Why("over_budget", (Shaped(12, "boost"),))
    assert held.bundles[TEA_CUP] == Bundle(TEA_CUP, parts, 500, 30, 2.5, why.encode(shaped))
    assert held.products["tea"] == Product("tea", "Tea", None, "kitchen")
    own = next(each for each in held.lists if each.segment == "families")
    story = Story(12, 4.0, 500, why.encode(Why("discounted")))
    assert own == AnchorList("families", "tea", (Listed(TEA_CUP, 0.1234, "region", story),))
    whole = next(each for each in held.lists if (each.segment, each.anchor) == ("*", "tea"))
    assert whole.bundles == (Listed(TEA_CUP, 0.1234, "region"), Listed(TEA_POT, 0.1234, "region"))


def test_a_list_of_a_bundle_that_the_build_lacks_is_named(work: stage.Work, tmp_path: Path) -> None:
    lists = source(tmp_path / "wrong" / "bundle_sets", [ranked("*", "tea", "0" * 16), ranked("*", "cup", TEA_CUP)])
    wrong = replace(work, lists=lists)
    with pytest.raises(TandemError, match=r"the list of 'tea' .* names bundle 0000"):
        list(contents(wrong))


def test_files_of_a_shop_have_64_to_256_kilobytes_compressed(tmp_path: Path) -> None:
    chance = random.Random(7)
    words = [f"{chance.getrandbits(24):x}" for _ in range(4_000)]
    skus = sorted({f"{chance.randrange(10**7)}" for _ in range(4_000)})
    products = [
        {
            "sku": sku,
            "title": " ".join(chance.choices(words, k=5)),
            "brand": chance.choice(words),
            "category": " > ".join(chance.choices(words[:40], k=3)),
            "image_url": "symbols/grocery.svg",
        }
        for sku in skus
    ]
    pairs = {sku: [{sku, other} for other in chance.sample(skus, 6) if other != sku] for sku in skus}
    names = [[bundle_id([(part, 1) for part in pair]) for pair in some] for some in pairs.values()]
    bundles = {
        name: bundle("*", name, "", orders=chance.randrange(900), lift=chance.uniform(1, 90))
        | {"components": [_component(sku, chance.choice(skus)) for sku in sorted(pair)]}
        for own, some in zip(names, pairs.values(), strict=True)
        for name, pair in zip(own, some, strict=True)
    }
    lists = [ranked("*", sku, *own) for sku, own in zip(skus, names, strict=True)]
    rows = {"bundle_sets": lists, "bundles": list(bundles.values()), "products": products}
    sources = [source(tmp_path / name, some) for name, some in rows.items()]
    count = stage.shard_count(sources[0])
    counted = stage.Rows(sources[0].values("anchor"), sources[1].values("bundle_id"))
    work = stage.Work(Settings(home=tmp_path), REGION, "r1", *sources, count, counted)
    sizes = [
        len(shards.shard_file("north", "r1", number, count, held.products, held.bundles, held.lists).body(GZIP))
        for number, held in contents(work)
    ]
    assert len(sizes) > 5
    assert min(sizes) >= 64_000
    assert max(sizes) <= 256_000


def _component(sku: str, instead: str) -> dict[str, Any]:
    return {"sku": sku, "quantity": 1, "floor_cents": 90, "substitutes": [{"sku": instead, "floor_cents": 80}]}


def test_the_search_list_ends_at_what_was_bought_most() -> None:
    orders = {"tea": 9, "cup": 30, "pot": 30, "lid": 99}
    content = stage.Content(
        [*(AnchorList("*", sku, (Listed(sku, 0.5, "region"),)) for sku in orders), AnchorList("*", "tea", ())],
        {sku: Bundle(sku, (Component(sku),), 0, count, 1.0) for sku, count in orders.items()},
        {sku: Product(sku, sku.title()) for sku in orders if sku != "lid"},
    )
    assert [product.sku for _, product in stage._searched(content, 2)] == ["cup", "pot"]
    assert [product.sku for _, product in stage._searched(content, 9)] == ["cup", "pot", "tea"]


def test_tasks_keep_to_the_regions_rate_together(work: stage.Work) -> None:
    assert work.slow_region.push_per_second * work.parts <= REGION.push_per_second


def test_where_a_task_would_hold_too_many_rows_there_are_more_tasks(work: stage.Work) -> None:
    many = replace(work, rows=stage.Rows(4 * stage.ROWS_A_TASK, 2 * stage.ROWS_A_TASK))
    assert many.parts == min(6, work.shard_count)
    assert many.slow_region == work.slow_region, "no more of them are at work at once"
    assert dict(contents(many)) == dict(contents(work))


def test_values_are_counted_without_reading_them(work: stage.Work) -> None:
    assert (work.lists.values("anchor"), work.lists.values("bundles.bundle_id")) == (4, 5)


@pytest.mark.spark
@pytest.mark.parametrize("error", [Damaged("shard 3 is missing"), Unavailable("no Redis"), TandemError("wrong")])
def test_what_a_task_raises_is_raised_again_as_itself(spark: Any, error: TandemError) -> None:
    def fails(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        raise error
        yield from batches

    with pytest.raises(type(error), match=str(error)) as raised:
        collected(spark.range(1).mapInArrow(fails, "id long"))
    assert type(raised.value) is type(error)
