"""Cells cut from the baskets that workers join are the cells that the orders themselves make."""

from __future__ import annotations

import random
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs.kernels import cells, cut, lines, sets
from spark_jobs.kernels.cells import Cell

DAY = date(2024, 3, 1)
MEMBERS = {"few": pa.array(["c1", "c2"]), "many": pa.array(["c3", "c4", "c5"])}
Order = tuple[str, str, str | None, list[str]]


def orders(seed: int) -> list[Order]:
    """Region, id, customer (of any region) and products of each."""
    chance = random.Random(seed)
    return [
        (
            chance.choice(["north", "south"]),
            f"o{number}",
            chance.choice([None, "c1", "c2", "c3", "c4", "c5", "c6"]),
            [sku for sku in "zyxwv" if chance.random() < 0.5] or ["z"],
        )
        for number in range(80)
    ]


def joined(made: list[Order]) -> tuple[lines.Baskets, lines.Cells]:
    parts = []
    for region in ("north", "south"):
        rows = [(order, who, sku) for own, order, who, skus in made if own == region for sku in skus]
        ids, who, sku = zip(*rows, strict=True)
        at = pa.array([0] * len(rows), pa.timestamp("us", "UTC"))
        table = pa.table({"order_id": ids, "ordered_at": at, "sku": sku, "customer_id": pa.array(who, pa.string())})
        parts.append(lines.packed(table, region, MEMBERS, "everyone"))
    baskets, found, _ = lines.joined(parts, decay=lines.decay(DAY, 365, 90), max_basket=99, max_item_orders=999)
    return baskets, found


def counted(cell: Cell) -> dict[tuple[str, ...], tuple[int, int]]:
    names = cell.skus.to_pylist()
    found = sets.frequent_sets(cell, min_orders=1, min_customers=1)
    return {
        tuple(names[item] for item in row if item >= 0): (int(n), int(k))
        for row, n, k in zip(found.items, found.orders, found.customers, strict=True)
    }


def segment_of(customer: str | None) -> str:
    return next((name for name, own in MEMBERS.items() if customer in own.to_pylist()), "everyone")


@pytest.mark.parametrize("seed", range(4))
def test_every_level_counts_what_its_orders_hold(seed: int):
    made = orders(seed)
    baskets, numbered = joined(made)
    met = set()
    for region in ("north", "south", "*"):
        for segment, cell in cut.levels(baskets, numbered, region, {*MEMBERS, "everyone"}):
            met.add((region, segment))
            own = [o for o in made if region in ("*", o[0]) and segment in ("*", segment_of(o[2]))]
            plain = cells.cell(pa.array([o[2] for o in own], pa.string()), pa.array([sorted(o[3]) for o in own]))
            assert cell.skus == plain.skus
            assert cell.orders == plain.orders
            assert np.array_equal(cell.item_counts, plain.item_counts)
            assert counted(cell) == counted(plain)
    assert met == {(r, s) for r in ("north", "south") for s in ("few", "many", "everyone", "*")} | {("*", "*")}
