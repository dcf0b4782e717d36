"""Cells cut from baskets: the orders of a segment, of a region or of everything, each as a cell of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spark_jobs.kernels.baskets import Baskets, Longs
from spark_jobs.kernels.cells import Cell, offsets
from spark_jobs.kernels.lines import Cells
from tandem.segments import ALL


def levels(baskets: Baskets, cells: Cells, region: str, asked: Collection[str]) -> Iterator[tuple[str, Cell]]:
    """Those of `region`'s segments that are `asked` for and have orders, and the region (`*`), each as a cell.

    Of everything (`*` as the region) there is only the whole.

    `cells` tells the region and segment of each of the baskets' cells.
    """
    if not baskets.orders:
        return
    person = persons(baskets)
    if region == ALL:
        yield ALL, cut(baskets, np.arange(baskets.orders), person)
        return
    for number, (own, segment) in enumerate(cells):
        orders = np.flatnonzero(baskets.cell == number)
        if own == region and segment in asked and len(orders):
            yield segment, cut(baskets, orders, person)
    inside = np.array([own == region for own, _ in cells], bool)
    yield ALL, cut(baskets, np.flatnonzero(inside[baskets.cell]), person)


def persons(baskets: Baskets) -> Longs:
    """Shape (orders,): number of each order's customer, the same in all cells; who is unknown has one of their own."""
    person = baskets.walk["owner"].astype(np.int64)
    person[baskets.crossing_orders] = int(person.max(initial=-1)) + 1 + baskets.crossing_person
    return person


def cut(baskets: Baskets, orders: NDArray[np.intp], person: Longs) -> Cell:
    """The cell of `orders` (numbers in `baskets`), customers told apart by `person`."""
    orders = orders[np.argsort(person[orders], kind="stable")]
    sizes = np.diff(baskets.starts)[orders]
    begins = offsets(sizes)
    lines = np.repeat(baskets.starts[orders] - begins[:-1], sizes) + np.arange(begins[-1])
    place = baskets.sku_place[baskets.items[lines]]
    held = np.bincount(place, minlength=len(baskets.skus))
    number = np.cumsum(held > 0) - 1
    items = number[place].astype(np.int32)
    by_item = np.argsort(items, kind="stable")
    order_of = np.repeat(np.arange(len(orders), dtype=np.int32), sizes)
    in_order = np.argsort(baskets.sku_place, kind="stable")[held > 0]
    return Cell(
        skus=baskets.skus.take(pa.array(in_order)),
        order_starts=begins,
        order_items=items,
        order_customer=np.unique(person[orders], return_inverse=True)[1].astype(np.int32),
        item_starts=offsets(held[held > 0]),
        item_orders=order_of[by_item],
    )
