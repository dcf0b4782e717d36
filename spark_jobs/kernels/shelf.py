"""A shop's products with what is written of them, numbered as the orders number them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.kernels import cells, content
from spark_jobs.kernels.cells import Cell, Ints

PRODUCT = "sku string, title string, brand string, category string, price double"
"""A row of the catalogue as `shelf` wants it: text empty and price null where nothing is known."""


class Shelf(NamedTuple):
    """Arrays of shape (items): products that were bought by SKU, then those that never were, by SKU."""

    cell: Cell
    """The orders; each customer's stand in the order in which they were given."""
    known: int
    """How many customers are known; orders of owners from this number on are nobody's."""
    usable: NDArray[np.bool_]
    """In the catalogue."""
    facts: content.Facts
    category: Ints
    """Number of the finest category, -1 unknown."""
    given: NDArray[np.int64]
    """Shape (orders): place of each order among those that the shelf was made from."""


def shelf(bought: pa.Table, products: pa.Table) -> Shelf:
    """From orders (customer, skus; in the order of time) and the catalogue (PRODUCT; one row a product)."""
    cell = cells.cell(bought["customer"], bought["skus"])
    skus = products["sku"].combine_chunks()
    unsold = skus.filter(pc.invert(pc.is_in(skus, cell.skus))).cast(cell.skus.type)
    unsold = unsold.take(pc.array_sort_indices(unsold))
    every = pa.concat_arrays([cell.skus, unsold])
    row = pc.index_in(every, skus)
    usable = pc.is_valid(row).to_numpy(zero_copy_only=False)
    text = {name: _text(products[name], row) for name in ("title", "brand", "category")}
    price = products["price"].combine_chunks().take(row).cast(pa.float64()).to_numpy(zero_copy_only=False)
    starts = np.append(cell.item_starts, np.full(len(unsold), cell.item_starts[-1]))
    whole = Cell(every, cell.order_starts, cell.order_items, cell.order_customer, starts, cell.item_orders)
    facts = content.Facts(_titles(text["title"], every), text["brand"], text["category"], price)
    codes = cells.codes(pa.array(text["category"], pa.string()))[0]
    unknown = np.fromiter((not each for each in text["category"]), bool, len(every))
    given = np.argsort(cells.owners(bought["customer"].combine_chunks()), kind="stable")
    known = pc.count_distinct(bought["customer"], mode="only_valid").as_py()
    return Shelf(whole, known, usable, facts, np.where(unknown, -1, codes).astype(np.int32), given)


def part(cell: Cell, keep: NDArray[np.bool_]) -> Cell:
    """The orders of `cell` at which `keep` (shape (orders)) is true; all items stay, by their numbers."""
    number = np.cumsum(keep) - 1
    lines = np.repeat(keep, np.diff(cell.order_starts))
    postings = keep[cell.item_orders]
    item = np.repeat(np.arange(len(cell.item_starts) - 1), np.diff(cell.item_starts))
    return Cell(
        skus=cell.skus,
        order_starts=cells.offsets(np.diff(cell.order_starts)[keep]),
        order_items=cell.order_items[lines],
        order_customer=cell.order_customer[keep],
        item_starts=cells.offsets(np.bincount(item[postings], minlength=len(cell.item_starts) - 1)),
        item_orders=number[cell.item_orders[postings]].astype(np.int32),
    )


def _text(values: pa.ChunkedArray, row: pa.Array) -> list[str]:
    return pc.fill_null(values.combine_chunks().take(row), "").to_pylist()  # type: ignore[no-any-return]


def _titles(titles: list[str], skus: pa.Array) -> list[str]:
    """A product without a title is called by its SKU, which says nothing of what it is."""
    return ["" if title == sku else title for title, sku in zip(titles, skus.to_pylist(), strict=True)]
