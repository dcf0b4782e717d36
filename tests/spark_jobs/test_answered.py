"""Answers as lists and bundles: one story a bundle, and nothing that rules forbid."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.kernels import answered, bundle_rows
from spark_jobs.kernels import shop as shops
from tandem import merchandising
from tandem.bundle import LEVELS, bundle_id
from tandem.rules import Rule
from tests.spark_jobs.test_bundling import CATEGORY, DAY, a_rule, relaxed, rule, rules_of, shop_of

OWN = pa.schema([("bundle_id", pa.string()), ("evidence", bundle_rows.EVIDENCE)])
Row = tuple[str, str, str, float]
"""Anchor, companion, level, confidence."""


def arranged(
    answers: list[Row], *held: Rule, counted: dict[str, str] | None = None, alike: list[tuple[str, str]] | None = None
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
    """Lists by anchor and bundles by id; `counted`: bundle to its level."""
    table = pa.Table.from_pylist(
        [
            {
                "anchor": anchor,
                "companion": companion,
                "level": LEVELS.index(level),
                "confidence": confidence,
                "customers": 10 + place,
                "lift": 2.0 + place,
                "place": place,
            }
            for place, (anchor, companion, level, confidence) in enumerate(answers)
        ]
    )
    own = [{"bundle_id": name, "evidence": {"matched": level}} for name, level in (counted or {}).items()]
    rows = answered.rows(
        table,
        pa.Table.from_pylist([{"bundle_id": None, "evidence": None}, *own], schema=OWN),
        shop_of(*held, alike=alike or []),
        rules_of(*held),
        "north",
    ).to_pylist()
    assert {(row["region"], row["segment"]) for row in rows} <= {("north", "*")}
    lists = {row["anchor"]: row["bundles"] for row in rows if row["anchor"] is not None}
    return lists, {row["bundle_id"]: row for row in rows if row["anchor"] is None}


def pair(*skus: str) -> str:
    return bundle_id((sku, 1) for sku in skus)


def test_a_bundle_has_the_story_of_its_most_telling_level_whoever_lists_it() -> None:
    lists, bundles = arranged(
        [
            ("b", "a", "popular", 0.4),
            ("a", "c", "content", 0.3),
            ("a", "b", "category", 0.2),
            ("d", "a", "content", 0.5),
        ]
    )
    assert [each["bundle_id"] for each in lists["a"]] == [pair("a", "c"), pair("a", "b")]
    assert [each["matched"] for each in lists["b"]] == ["category"]
    assert [each["confidence"] for each in lists["b"]] == [0.4], "of each anchor its own"
    made = bundles[pair("a", "b")]
    assert made["evidence"] == {
        "matched": "category",
        "basis": "category",
        "orders_together": 0,
        "customers_together": 12,
        "lift": 4.0,
    }
    assert made["score"] == 0.4
    assert [part["sku"] for part in made["components"]] == ["a", "b"]
    assert set(bundles) == {pair("a", "b"), pair("a", "c"), pair("a", "d")}


def test_what_is_counted_keeps_its_story_and_is_not_made_again() -> None:
    lists, bundles = arranged(
        [("a", "b", "popular", 0.4), ("a", "c", "popular", 0.3)], counted={pair("a", "b"): "global"}
    )
    assert [each["matched"] for each in lists["a"]] == ["global", "popular"]
    assert set(bundles) == {pair("a", "c")}


def test_components_come_with_what_may_stand_in_for_them() -> None:
    _, bundles = arranged([("a", "b", "popular", 0.4)], alike=[("a", "f"), ("f", "a")])
    parts = bundles[pair("a", "b")]["components"]
    assert [[other["sku"] for other in part["substitutes"]] for part in parts] == [["f"], []]


@relaxed
@given(st.lists(a_rule(), max_size=4))
def test_nothing_holds_what_rules_forbid_not_as_a_substitute_either_and_all_else_stays(held: list[Rule]) -> None:
    asked = [(anchor, companion, "popular", 0.5) for anchor, companion in permutations(CATEGORY, 2)]
    lists, bundles = arranged(asked, *held, alike=[("a", "f"), ("f", "a"), ("d", "e")])
    resolved = merchandising.resolve(held, [], shops.products(shop_of().rows), DAY)
    possible = {row[:2] for row in asked if merchandising.possible(row[:2], resolved)}
    assert {(anchor, each["bundle_id"]) for anchor, own in lists.items() for each in own} == {
        (anchor, pair(anchor, companion)) for anchor, companion in possible
    }
    assert set(bundles) == {pair(*two) for two in possible}
    for bundle in bundles.values():
        own = [part["sku"] for part in bundle["components"]]
        for place, part in enumerate(bundle["components"]):
            for other in part["substitutes"]:
                assert other["sku"] not in own
                assert merchandising.possible([other["sku"], own[1 - place]], resolved)


def test_rules_of_other_regions_and_segments_do_not_count() -> None:
    elsewhere = [rule("exclude", ["a"], regions=["south"]), rule("exclude", ["b"], segments=["few"])]
    assert set(arranged([("a", "b", "popular", 0.4)], *elsewhere)[1]) == {pair("a", "b")}


def test_nothing_answered_is_nothing_listed() -> None:
    assert arranged([("a", "unknown", "popular", 0.4)]) == ({}, {})
