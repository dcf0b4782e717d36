"""Every product that may be bundled has an answer, and the answer says what it rests on."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from spark_jobs import cold, delta
from spark_jobs.kernels import shelf, votes
from tandem.bundle import LEVELS
from tandem.rules import Rules
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF, PRODUCTS
from warehouse import gate, lake

REGIONS = ["north", "south"]


def _orders(seed: int = 7) -> list[tuple[str, str | None, list[str]]]:
    """Tea goes with honey, paint with brushes; milk is the most popular, in the south wine is."""
    chance = random.Random(seed)
    found: list[tuple[str, str | None, list[str]]] = []
    for number in range(600):
        region = REGIONS[number % 3 == 0]
        held = {"milk"} if chance.random() < 0.5 else set()
        held |= {"wine"} if chance.random() < (0.1 if region == "north" else 0.7) else set()
        if chance.random() < 0.3:
            held |= {chance.choice(["green-tea", "black-tea"]), "honey"}
        if chance.random() < 0.2:
            held |= {chance.choice(["red-paint", "blue-paint"]), "brush"}
        if held:
            found.append((region, None if number % 11 == 0 else f"c{number % 50}", sorted(held)))
    return found


KNOWN = {
    "green-tea": ("Green tea, 20 bags", "Food > Tea"),
    "black-tea": ("Black tea, 20 bags", "Food > Tea"),
    "honey": ("Honey", "Food > Honey"),
    "red-paint": ("Red paint, 1 l", "Home > Paint"),
    "blue-paint": ("Blue paint, 1 l", "Home > Paint"),
    "brush": ("Brush", "Home > Brushes"),
    "milk": ("Milk", "Food > Milk"),
    "wine": ("Wine", "Drinks > Wine"),
}
NEW = {
    "white-tea": ("White tea, 20 bags", "Food > Tea"),
    "tea-untold": ("", "Food > Tea"),
    "pink-paint": ("Pink paint, 1 l", ""),
    "抹茶": ("緑茶 20袋", ""),
    "mystery": ("mystery", ""),
}


def _answered(
    new: dict[str, tuple[str, str]], *, k: int = 3, orders: Any = None, priced: Callable[[str, str], bool] | None = None
) -> dict[tuple[str, str], list[tuple[str, str, float]]]:
    """(region, anchor) → (companion, level, confidence), best first; `new` products are asked for in every region."""
    orders = _orders() if orders is None else orders
    every = KNOWN | new
    bought = pa.table(
        {
            "region": pa.array([region for region, _, _ in orders], pa.string()),
            "customer": pa.array([customer for _, customer, _ in orders], pa.string()),
            "skus": pa.array([held for _, _, held in orders], pa.list_(pa.string())),
        }
    )
    products = pa.table(
        {
            "sku": list(every),
            "title": pa.array([title for title, _ in every.values()], pa.string()),
            "brand": pa.array([""] * len(every), pa.string()),
            "category": pa.array([category for _, category in every.values()], pa.string()),
            "price": pa.array([None] * len(every), pa.float64()),
        }
    )
    held = shelf.shelf(bought, products)
    skus = held.cell.skus.to_pylist()
    asked = {region: np.isin(skus, list(new)) for region in REGIONS}
    sold = {region: np.array([priced is None or priced(region, sku) for sku in skus], bool) for region in REGIONS}
    tables = list(cold._answers(held, bought, asked, sold, dict.fromkeys(REGIONS, k), Rules()))
    found: dict[tuple[str, str], list[tuple[str, str, float]]] = {}
    for row in pa.concat_tables(tables).to_pylist() if tables else []:
        assert row["customers"] >= k
        place = found.setdefault((row["region"], row["anchor"]), [])
        place.append((row["companion"], LEVELS[row["level"]], row["confidence"]))
        assert row["place"] == len(place)
    return found


@pytest.mark.parametrize(
    ("sku", "companion", "level"),
    [
        ("white-tea", "honey", "category"),
        ("tea-untold", "honey", "category"),
        ("pink-paint", "brush", "content"),
        ("mystery", "wine", "popular"),
    ],
)
def test_a_new_product_gets_what_products_like_it_are_bought_with(sku: str, companion: str, level: str):
    best = _answered(NEW)["south", sku]
    assert best[0][:2] == (companion, level)
    assert {each[1] for each in best} == {level}
    assert [each[2] for each in best] == sorted((each[2] for each in best), reverse=True)


def test_every_new_product_has_an_answer_in_every_region_and_never_of_its_own_need():
    found = _answered(NEW)
    assert set(found) == {(region, sku) for region in REGIONS for sku in NEW}
    for (_, anchor), best in found.items():
        assert anchor not in {each[0] for each in best}
        if NEW[anchor][1]:
            assert not {each[0] for each in best} & {"green-tea", "black-tea"}


def test_titles_in_other_scripts_are_read():
    orders = [*_orders(), *[("north", f"c{number}", ["茶", "honey"]) for number in range(20)]]
    found = _answered({"茶": ("緑茶", ""), "抹茶": ("緑茶 20袋", "")}, orders=orders)
    assert found["north", "抹茶"][0][:2] == ("honey", "content")


def test_popular_is_of_the_region_and_of_everywhere_where_it_has_nothing():
    found = _answered({"mystery": ("", "")})
    assert [found[region, "mystery"][0][0] for region in REGIONS] == ["milk", "wine"]
    north = [order for order in _orders() if order[0] == "north"]
    assert _answered({"mystery": ("", "")}, orders=north)["south", "mystery"][0][0] == "milk"


def test_a_companion_without_a_price_in_the_region_is_not_answered():
    found = _answered(NEW, priced=lambda region, sku: (region, sku) != ("north", "honey"))
    assert "honey" not in {each[0] for each in found["north", "white-tea"]}
    assert found["south", "white-tea"][0][0] == "honey"


def test_a_products_own_few_orders_have_no_say():
    told = [*_orders(), ("north", "c1", ["brush", "white-tea"]), ("north", "c2", ["brush", "white-tea"])]
    quiet = [*_orders(), ("north", "c1", ["brush"]), ("north", "c2", ["brush"])]
    assert [each[:2] for each in _answered(NEW, orders=told)["north", "white-tea"]] == [
        each[:2] for each in _answered(NEW, orders=quiet)["north", "white-tea"]
    ]


def test_fewer_than_k_customers_give_no_pair():
    few = [("north", f"c{number % 2}", ["green-tea", "honey"]) for number in range(40)]
    assert _answered(NEW, orders=few, k=3) == {}
    assert _answered(NEW, orders=[], k=1) == {}


def test_a_shop_of_one_product_has_nothing_to_answer_and_fails_at_nothing():
    only = [("north", f"c{number}", ["honey"]) for number in range(9)]
    assert _answered({"honey": ("Honey", "Food > Honey")}, orders=only, k=3) == {}


def test_answers_do_not_depend_on_the_order_of_the_rows():
    orders, turned = _orders(), _orders()[::-1]
    for key, best in _answered(NEW, orders=orders).items():
        other = _answered(NEW, orders=turned)[key]
        assert [each[:2] for each in best] == [each[:2] for each in other]
        assert [each[2] for each in best] == pytest.approx([each[2] for each in other])


def test_customers_of_a_product_are_counted_once():
    orders = [("north", "a", ["x"]), ("north", "a", ["x", "y"]), ("north", "b", ["x"]), ("north", None, ["y"])]
    bought = pa.table({"customer": [row[1] for row in orders], "skus": [row[2] for row in orders]})
    products = pa.table({"sku": ["x"], "title": ["X"], "brand": [""], "category": [""], "price": [1.0]})
    assert votes.buyers(shelf.shelf(bought, products).cell).tolist() == [2, 2]


def test_a_part_of_the_orders_keeps_the_items_and_their_numbers():
    bought = pa.table({"customer": ["a", "b", "a"], "skus": [["x"], ["y"], ["x", "y"]]})
    products = pa.table(
        {"sku": ["x", "z"], "title": ["", ""], "brand": ["", ""], "category": ["", ""], "price": [1, 1]}
    )
    held = shelf.shelf(bought, products)
    some = shelf.part(held.cell, np.array([False, True, True]))
    assert held.cell.skus.to_pylist() == ["x", "y", "z"]
    assert some.item_counts.tolist() == [1, 2, 0]
    assert [some.order_items[a:b].tolist() for a, b in zip(some.order_starts, some.order_starts[1:], strict=False)] == [
        [0, 1],
        [1],
    ]


@pytest.mark.spark
def test_every_active_product_of_a_built_shop_has_a_list_in_every_region(spark: Any, built: Settings):
    with duckdb.connect() as connection:
        for name in ("bundles", "bundle_sets"):
            connection.register(name, lake.open_table(built, name).to_pyarrow_dataset())
        listed = set(connection.execute("SELECT region, anchor FROM bundle_sets WHERE segment = '*'").fetchall())
        entries = connection.execute("""
            SELECT s.region, s.anchor, e.confidence, e.matched, b.evidence.matched, b.evidence.orders_together,
                   b.evidence.customers_together, b.discount_bps, list_transform(b.components, lambda part: part.sku)
            FROM (SELECT region, segment, anchor, unnest(bundles) AS e FROM bundle_sets) AS s
            LEFT JOIN bundles b ON b.region = s.region AND b.segment = s.segment AND b.bundle_id = e.bundle_id
        """).fetchall()
    offered = {sku for sku in PRODUCTS if sku not in ("old", "bag")}
    assert listed == {(region, sku) for region in REGIONS for sku in offered}
    for _, anchor, confidence, matched, level, together, customers, discount, skus in entries:
        assert matched == level
        assert anchor in skus
        assert customers >= 3
        assert 0 < confidence <= 1
        if level in ("category", "content", "popular"):
            assert (together, discount) == (0, 0)
        else:
            assert together > 0
    assert {entry[3] for entry in entries} & {"category", "content"}
    assert gate.check(built, AS_OF) == []
    keys = delta.read_day(spark, built, "bundles", AS_OF).groupBy("region", "segment", "bundle_id").count()
    assert keys.where("count > 1").count() == 0
