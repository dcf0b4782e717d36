"""Lists made from counted sets: what rules ask for holds, evidence is exact, nothing tells of fewer than k."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from itertools import combinations, permutations

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_jobs.kernels import bundle_rows, cells, completion, mining, offering
from spark_jobs.kernels import shop as shops
from spark_jobs.kernels.offering import Window
from spark_jobs.kernels.shop import Shop
from tandem import merchandising
from tandem.bundle import bundle_id
from tandem.merchandising import Resolved
from tandem.rules import Pricing, Rule, Rules

CATEGORY = {"a": "A", "b": "B", "c": "C", "d": "D > X", "e": "D > Y", "f": "A", "g": ""}
PRICE = {"a": 100, "b": 200, "c": 300, "d": 400, "e": 500, "f": 110, "g": 90_000}
NORTH = Window("north", "*", 2)
DAY = dt.date(2024, 3, 1)
relaxed = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
SIDES = st.sets(st.sampled_from(sorted(CATEGORY)), min_size=1, max_size=2).map(sorted)


def rules_of(*held: Rule, **bundling_keys: object) -> Rules:
    return msgspec.convert(
        {"learning": {"min_orders_together": 2}, "bundling": bundling_keys, "rule": msgspec.to_builtins(held)}, Rules
    )


def rule(action: str, products: Sequence[str], companions: Sequence[str] = (), **more: object) -> Rule:
    sides = {"products": {"sku": list(products)}} | ({"with": {"sku": list(companions)}} if companions else {})
    return msgspec.convert({"action": action} | sides | more, Rule)


def shop_of(*held: Rule, alike: Sequence[tuple[str, str]] = ()) -> Shop:
    rows = [("product", sku, category, "maker", None) for sku, category in CATEGORY.items()]
    rows += [("price", sku, "north", None, price) for sku, price in PRICE.items()]
    rows += [("alike", sku, other, None, rank) for rank, (sku, other) in enumerate(alike, 1)]
    table = pa.table([pa.array(column, field.type) for column, field in zip(zip(*rows), shops.SCHEMA)], shops.SCHEMA)  # noqa: B905
    resolved = merchandising.resolve(held, range(1, 1 + len(held)), shops.products(table), DAY)
    numbered = merchandising.holding(held, range(1, 1 + len(held)), DAY)
    return Shop(shops.from_bytes(shops.to_bytes(shops.with_rules(table, resolved))), numbered)


def cell_of(baskets: Sequence[tuple[str | None, set[str]]]) -> cells.Cell:
    customers = pa.array([customer for customer, _ in baskets], pa.string())
    return cells.cell(customers, pa.array([sorted(skus) for _, skus in baskets], pa.list_(pa.string())))


def baskets_of(seed: int, count: int = 120) -> list[tuple[str | None, set[str]]]:
    chance = random.Random(seed)
    found = []
    for number in range(count):
        held = {sku for sku in CATEGORY if chance.random() < 0.15}
        held |= {sku for sku in "abc" if chance.random() < 0.4} if number % 3 == 0 else set()
        found.append((f"c{number % 11}", held or {"g"}))
    return found


def made(held: Sequence[Rule], baskets: Sequence[tuple[str | None, set[str]]], window: Window = NORTH, **keys: object):  # type: ignore[no-untyped-def]
    rules, shop = rules_of(*held, **keys), shop_of(*held, alike=[("a", "f"), ("f", "a"), ("d", "e")])
    sets = mining.mined(cell_of(baskets), shop, rules, region="north", segment="*", k=window.k)
    offers = offering.offers({1: sets}, shop, rules, window)
    table = bundle_rows.rows(offers, shop, rules, window)
    lists = {row["anchor"]: row["bundles"] for row in table.to_pylist() if row["anchor"] is not None}
    bundles = {row["bundle_id"]: row for row in table.to_pylist() if row["anchor"] is None}
    return lists, bundles


def skus(bundle: dict) -> tuple[str, ...]:  # type: ignore[type-arg]
    return tuple(part["sku"] for part in bundle["components"])


@st.composite
def a_rule(draw: st.DrawFn) -> Rule:
    action = draw(st.sampled_from(["pin", "boost", "bury", "exclude", "never_together", "always_with"]))
    needed = action in ("pin", "never_together", "always_with")
    return rule(action, draw(SIDES), draw(SIDES) if needed else draw(st.one_of(st.just([]), SIDES)))


@relaxed
@given(st.lists(a_rule(), max_size=4), st.integers(0, 5))
def test_whatever_the_rules_no_list_holds_what_they_forbid_and_pins_stand_first(held: list[Rule], seed: int):
    lists, bundles = made(held, baskets_of(seed))
    resolved = merchandising.resolve(held, [], shops.products(shop_of().rows), DAY)
    for bundle in bundles.values():
        own = skus(bundle)
        assert merchandising.possible(own, resolved)
        for place, part in enumerate(bundle["components"]):
            for other in part["substitutes"]:
                assert merchandising.possible({*own[:place], other["sku"], *own[place + 1 :]}, resolved)
                assert other["sku"] not in own
    wanted: dict[str, list[str]] = {}
    for pin in merchandising.pinned(resolved):
        ids = wanted.setdefault(pin.anchor, [])
        ids += [] if (own := bundle_id((sku, 1) for sku in pin.skus)) in ids else [own]
    for anchor, ids in wanted.items():
        assert [each["bundle_id"] for each in lists[anchor]][: len(ids)] == ids
    assert {each["bundle_id"] for listed in lists.values() for each in listed} == set(bundles)
    pins = {(pin.skus, pin.rule) for pin in merchandising.pinned(resolved)}
    for bundle in bundles.values():
        told = [(rule["line"], rule["action"]) for rule in bundle["rules"]]
        assert told == [
            (place + 1, rule.action)
            for place, rule in enumerate(resolved)
            if ((skus(bundle), place) in pins if rule.action == "pin" else shaping(rule, skus(bundle)))
        ]


def shaping(rule: Resolved, held: Sequence[str]) -> bool:
    """Whether a rule that is no pin moved the bundle of `held`, or asked for a product in it; the slow way."""
    if rule.action not in ("boost", "bury", "always_with"):
        return False
    if not rule.rule.companions:
        return bool(rule.products & set(held))
    return any(one in rule.products and other in rule.companions for one, other in permutations(held, 2))


@pytest.mark.parametrize("seed", range(4))
def test_evidence_is_what_the_orders_hold_and_every_bundle_serves_different_needs(seed: int):
    baskets = baskets_of(seed)
    lists, bundles = made([], baskets)
    assert any(len(skus(bundle)) > 2 for bundle in bundles.values())
    for bundle in bundles.values():
        own, told = set(skus(bundle)), bundle["evidence"]
        holding = [customer for customer, held in baskets if own <= held]
        assert (told["orders_together"], told["customers_together"]) == (len(holding), len(set(holding)))
        each = [sum(sku in held for _, held in baskets) for sku in own]
        assert told["lift"] == pytest.approx(len(holding) * len(baskets) ** (len(own) - 1) / np.prod(each))
        assert told["customers_together"] >= NORTH.k
        assert (told["matched"], told["basis"]) == ("region", "counts")
        assert len({CATEGORY[sku] or sku for sku in own}) == len(own)
        assert max(PRICE[sku] for sku in own) <= 30 * min(PRICE[sku] for sku in own), "a TV is not sold with gum"
    for anchor, listed in lists.items():
        for each in listed:
            own = set(skus(bundles[each["bundle_id"]]))
            share = sum(own <= held for _, held in baskets) / sum(anchor in held for _, held in baskets)
            assert each["confidence"] == pytest.approx(share)


def test_two_of_one_category_are_a_bundle_only_where_shoppers_take_them_together():
    often = [(f"c{n}", {"a", "f"}) for n in range(6)] + [(f"c{n}", {"b"}) for n in range(80)]
    assert {skus(bundle) for bundle in made([], often)[1].values()} == {("a", "f")}
    assert not made([], often, variety_lift=0)[1]
    rarely = [*often, *((f"c{n}", {sku}) for n in range(30) for sku in "af")]
    assert not made([], rarely)[1], "a lift of 3 is no reason to sell two of one need"


def test_a_pinned_bundle_that_few_bought_tells_nothing_about_them():
    baskets = [("c1", {"d", "g"}), *baskets_of(1)]
    baskets = [(customer, held - {"g"} if customer != "c1" else held) for customer, held in baskets]
    lists, bundles = made([rule("pin", ["d"], ["g"])], baskets)
    first = lists["d"][0]
    assert (first["confidence"], first["matched"]) == (0.0, "none")
    told = bundles[first["bundle_id"]]
    assert told["evidence"] == {
        "matched": "none",
        "basis": "rule",
        "orders_together": 0,
        "customers_together": 0,
        "lift": 0.0,
    }
    assert told["score"] == 0.0
    assert "g" not in lists, "a pin is for its own anchor"


def test_a_boosted_bundle_moves_up_and_a_buried_one_down():
    baskets = baskets_of(2)
    plain = [each["bundle_id"] for each in made([], baskets)[0]["a"]]
    last = skus(made([], baskets)[1][plain[-1]])
    other = next(sku for sku in last if sku != "a")
    boosted = [each["bundle_id"] for each in made([rule("boost", ["a"], [other], factor=1000)], baskets)[0]["a"]]
    assert other in skus(made([rule("boost", ["a"], [other], factor=1000)], baskets)[1][boosted[0]])
    first = next(sku for sku in skus(made([], baskets)[1][plain[0]]) if sku != "a")
    buried = made([rule("bury", ["a"], [first], factor=1000)], baskets)
    assert first not in skus(buried[1][buried[0]["a"][0]["bundle_id"]])


def test_a_segment_lists_what_it_supports_and_borrows_the_rest_from_its_region():
    region, segment = baskets_of(3, 300), [(f"c{n}", {"a", "b"}) for n in range(8)]
    rules, shop, window = rules_of(), shop_of(), Window("north", "few", 2)
    tables = {
        level: mining.mined(cell_of(baskets), shop, rules, region="north", segment=name, k=2)
        for level, name, baskets in ((0, "few", segment), (1, "*", [*region, *segment]))
    }
    assert not len(tables[0]), "all of its orders hold both: no more than chance"
    segment += [(f"c{n}", {"c"}) for n in range(20)]
    tables[0] = mining.mined(cell_of(segment), shop, rules, region="north", segment="few", k=2)
    table = bundle_rows.rows(offering.offers(tables, shop, rules, window), shop, rules, window).to_pylist()
    lists = {row["anchor"]: row["bundles"] for row in table if row["anchor"]}
    assert set(lists) == {"a", "b"}, "what it supports nothing of has the region's list"
    levels = {each["bundle_id"]: each["matched"] for each in lists["a"]}
    assert levels.pop(bundle_id([("a", 1), ("b", 1)])) == "segment"
    assert set(levels.values()) == {"region"}


def test_pairs_stand_in_the_order_that_is_preferred():
    baskets, rules, shop = baskets_of(4), rules_of(diversity=0, reach=0, larger_sets=0.001), shop_of()
    sets = mining.mined(cell_of(baskets), shop, rules, region="north", segment="*", k=2)
    offers = offering.offers({1: sets}, shop, rules, NORTH)
    plain = [tuple(offers.pool.ids.take(pa.array(offers.bundle[offers.anchor == 0])).to_pylist())]
    items = [offers.pool.items[place] for place in offers.bundle[offers.anchor == 0]]
    companions = [int(row[1]) for row in items if (row >= 0).sum() == 2]
    wanted = companions[::-1]
    preferred = pa.table(
        {
            "anchor": ["a"] * len(wanted),
            "companion": shop.skus.take(pa.array(wanted)),
            "place": list(range(1, 1 + len(wanted))),
        }
    )
    offers = offering.offers({1: sets}, shop, rules, NORTH, preferred)
    items = [offers.pool.items[place] for place in offers.bundle[offers.anchor == 0]]
    assert [int(row[1]) for row in items if (row >= 0).sum() == 2] == wanted
    assert len(plain[0]) == len(items)


def test_what_is_expected_is_what_later_orders_show_and_the_best_beat_chance():
    chance = random.Random(9)
    orders = []
    for number in range(6000):
        held = {sku for sku in "cdefg" if chance.random() < 0.2}
        held |= {"a"} if chance.random() < 0.2 else set()
        held |= {"b"} if "a" in held and chance.random() < 0.5 else set()
        held |= {"b"} if chance.random() < 0.02 else set()
        orders.append((f"c{number % 200}", sorted(held | {"c"}), number // 60))
    table = pa.table([pa.array(column) for column in zip(*orders, strict=True)], names=["customer", "skus", "day"])
    rules = msgspec.structs.replace(rules_of(), pricing=Pricing(min_lift=2))
    found = {row.metric: row for row in completion.measured(table, shop_of(), rules, region="north", k=5)}
    both, a, b = 0.2 * 0.51, 0.2, 0.2 * 0.51 + 0.8 * 0.02
    attached = found["attach_rate/bundles"]
    assert attached.low < 2 * both / (a + b) < attached.high, "each of the two in turn is the anchor"
    assert found["lift_over_chance/bundles"].value > 2
    assert found["calibration_error/bundles"].value < 0.03
    assert 0 < found["taken/bundles"].value <= 1
    curve = [row for name, row in found.items() if name.startswith("calibration/bundles@expected=")]
    assert curve
    assert all(row.low <= row.value <= row.high for row in found.values())


def test_later_orders_are_asked_exactly():
    later = cell_of([("x", {"a", "b", "c"}), ("x", {"a"}), ("y", {"a", "b"}), (None, {"b"})])
    number = np.array([0, 1, 2, -1], np.int32)
    items = np.array([[0, 1, -1, -1], [0, 1, 2, -1], [0, 3, -1, -1], [1, 0, -1, -1]], np.int32)
    found = completion.ask(later, number, np.array([0, 0, 0, 1], np.int32), items)
    assert found.asked.tolist() == [3, 3, 3, 3]
    assert found.completed.tolist() == [2, 1, 0, 2]
    assert found.served_by.sum() == 6
    assert found.taken_by.sum() == 4


def test_all_pairs_that_may_stand_together_are_mined():
    baskets = baskets_of(5)
    sets = mining.mined(cell_of(baskets), shop_of(), rules_of(), region="*", segment="*", k=2)
    found = {tuple(each) for each in sets["skus"].to_pylist()}
    total = len(baskets)
    for pair in combinations(sorted(CATEGORY), 2):
        counts = [sum(sku in held for _, held in baskets) for sku in pair]
        both = [customer for customer, held in baskets if set(pair) <= held]
        lift = len(both) * total / np.prod(counts)
        wanted = len(set(both)) >= 2 and lift > 1 and (CATEGORY[pair[0]] != CATEGORY[pair[1]] or lift >= 10)
        assert (pair in found) == wanted, pair
