"""Products that serve the same need: what repairs a bundle, and what is never a companion.

A substitute is of the same need (category, or likeness of title where categories do not tell), is rarely in one order
with the product, and is what customers changed to. How often they did, and how often chance would have put both into
one order, is counted in `kernels.swaps`; who buys them (item factors) and what is written of them make the prior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, GroupedData
from pyspark.sql import functions as F

from spark_jobs import delta, embeddings, facts, in_tasks, order_files, parquet_files
from spark_jobs.facts import Job
from spark_jobs.kernels import baselines, content, later, nearest, protocol, swaps
from spark_jobs.kernels import shelf as shelves
from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.protocol import Measure
from spark_jobs.kernels.shelf import Shelf
from tandem.segments import ALL
from warehouse.tables import NEIGHBOURS, SUBSTITUTES

TABLES = (SUBSTITUTES, NEIGHBOURS)
TOP = 10
"""Substitutes kept of a product."""
NEAR = 20
"""Candidates beside the category's most bought: so many most alike by content, and by buyers where no category is."""
MEASURED = "metric string, value double, low double, high double, queries long"


def write(job: Job) -> None:
    """Replace the day's rows of substitutes, and of neighbours: products that the same customers buy.

    All regions learn together, in one task: about 120 bytes a line of an order, 4 kB a product.
    """
    bought, products = order_files.packed(job), described(job)
    written = in_tasks.values(in_one(bought).cogroup(in_one(products)).applyInArrow(_writer(job), in_tasks.VALUE))
    for table in TABLES:
        files = [found[table.name] for found in written if table.name in found]
        parquet_files.replace_day(job.settings, table.name, job.as_of, files)


def least_k(job: Job) -> int:
    """Customers that swaps need before they say anything: the most careful region's, as all regions learn together."""
    return max(region.k for region in job.regions.region)


def described(job: Job) -> DataFrame:
    """Products that may be bundled, as `kernels.shelf.PRODUCT`."""
    price = job.fact("prices").groupBy("sku").agg(F.min("list_price_cents").cast("double").alias("price"))
    text = [F.coalesce(name, F.lit("")).alias(name) for name in ("title", "brand", "category")]
    return facts.catalogue(job).join(price, "sku", "left").select("sku", *text, "price")


def in_one(rows: DataFrame) -> GroupedData:
    """All rows as one group: one task holds them."""
    return rows.withColumn("all", F.lit("all")).groupBy("all")


def _writer(job: Job) -> Callable[[pa.Table, pa.Table], pa.Table]:
    min_customers, max_basket = least_k(job), job.rules.learning.max_basket
    folders = {table.name: order_files.folder(job.settings, table.name) for table in TABLES}
    day = {"as_of": f"{job.as_of}"}

    def write_files(packed: pa.Table, products: pa.Table) -> pa.Table:
        held = shelves.shelf(order_files.orders(packed, max_basket), products)
        known = enough(held)
        factors = embeddings.of_cell(held.cell, known)
        kept = np.flatnonzero(known)
        skus = held.cell.skus.cast(pa.string())
        rows = (
            _rows(skus, found(held, factors, min_customers)),
            embeddings.neighbours(skus.take(pa.array(kept)), factors[kept], held.category[kept]),
        )
        written = {
            table.name: parquet_files.write(folders[table.name], table, day, made)
            for table, made in zip(TABLES, rows, strict=True)
            if len(made)
        }
        return pa.Table.from_batches([in_tasks.given([written])])

    return write_files


def enough(held: Shelf) -> NDArray[np.bool_]:
    """Usable items in orders enough that item factors say something of them."""
    return held.usable & (held.cell.item_counts >= embeddings.MIN_ORDERS)


def found(held: Shelf, factors: NDArray[np.float32], min_customers: int, top: int = TOP) -> swaps.Substitutes:
    """The `top` substitutes of each usable product, numbers as on the shelf; `factors`: see `embeddings.of_cell`."""
    orders = np.where(held.usable, held.cell.item_counts, 0).astype(np.int32)
    written = content.vectors(held.facts, held.usable)
    near, _ = content.similar(written, orders, 1, NEAR)
    near = np.hstack([near, _near_by_buyers(factors, held.category)])
    left, right = swaps.candidates(orders, held.category, held.usable, near)
    return swaps.chosen(
        left,
        right,
        swaps.history(held.cell, held.known, left, right),
        content.cosine(written, left, right),
        _likeness(factors, left, right),
        orders=orders,
        category=held.category,
        min_customers=min_customers,
        top=top,
    )


def _near_by_buyers(factors: NDArray[np.float32], category: Ints) -> Ints:
    """Shape (items, NEAR): for products without a category, those whose buyers are most alike."""
    kept = np.flatnonzero((category < 0) & factors.any(1)).astype(np.int32)
    places = np.full((len(category), NEAR), -1, np.int32)
    none = np.zeros(len(kept), np.int32)
    for item, neighbour, _, same, rank in nearest.nearest(factors[kept], none, alike=NEAR, others=1):
        places[kept[item[same]], rank[same] - 1] = kept[neighbour[same]]
    return places


def _likeness(factors: NDArray[np.float32], left: Ints, right: Ints) -> NDArray[np.float64]:
    return np.concatenate(
        [np.zeros(0)]
        + [
            np.einsum("ij,ij->i", factors[left[at : at + 2**17]], factors[right[at : at + 2**17]]).astype(np.float64)
            for at in range(0, len(left), 2**17)
        ]
    )


def _rows(skus: pa.Array, made: swaps.Substitutes) -> pa.Table:
    columns = {
        "sku": skus.take(pa.array(made.item)),
        "substitute": skus.take(pa.array(made.substitute)),
        "similarity": made.similarity,
        "swaps": made.swaps.astype(np.int64),
        "customers": made.customers.astype(np.int64),
        "together": made.together.astype(np.int64),
        "expected": made.expected,
        "apart": made.together <= made.expected,
        "score": made.score,
        "rank": made.rank,
    }
    return pa.table(columns)


def evaluated(job: Job) -> list[Measure]:
    """Rows of `evaluations`: are substitutes bought in place of what they stand in for, and of the same need?

    `repaired@3/…`: see `kernels.later`; beside it the most bought of the same category, and the nearest of it by item
    factors. `same_category_share` and `together_over_expected` (see `kernels.swaps`) of substitutes and of companions
    (the first five by confidence) have no interval.
    """
    k = least_k(job)
    return asked_later(job, lambda found: judged(found, k))


Judge = Callable[[later.Split], Iterator[tuple[str, protocol.Estimate]]]


def asked_later(job: Job, judge: Judge) -> list[Measure]:
    """What `judge` says of the window's orders split in time: all regions together, in one task."""
    max_basket = job.rules.learning.max_basket

    def measure(packed: pa.Table, products: pa.Table) -> pa.Table:
        bought = order_files.orders(packed, max_basket)
        told = list(judge(later.split(bought, products))) if len(bought) else []
        names = [name for name, _ in told]
        columns = list(zip(*(each for _, each in told), strict=True)) or [()] * 4
        kinds = (pa.float64(), pa.float64(), pa.float64(), pa.int64())
        arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
        return pa.table([pa.array(names, pa.string()), *arrays], names=delta.names(MEASURED))

    rows = in_one(order_files.packed(job)).cogroup(in_one(described(job))).applyInArrow(measure, MEASURED).collect()
    return [Measure(ALL, ALL, *row) for row in rows]


def judged(split: later.Split, min_customers: int) -> Iterator[tuple[str, protocol.Estimate]]:
    """Each measure of `evaluated` with its estimate; none of repair where no category is known."""
    held = split.held
    factors = embeddings.of_cell(held.cell, enough(held))
    made = found(held, factors, min_customers)
    items = len(held.usable)
    orders = np.where(held.usable, held.cell.item_counts, 0).astype(np.int32)
    asked = later.repairs(split)
    lists = {
        "substitutes": later.listed(made.item, made.substitute, made.rank, items, later.REPAIRS),
        "category_popularity": later.popular_of_category(orders, held.category, held.usable, later.REPAIRS),
        "factors": _nearest_of_category(held, factors),
    }
    hits = {name: later.repaired(asked, split.after, each) for name, each in lists.items()}
    if len(asked.item):
        hits["substitutes_over_popularity"] = hits["substitutes"] - hits["category_popularity"]
        for name, each in protocol.estimates(hits, asked.customer).items():
            yield f"repaired@{later.REPAIRS}/{name}", each
    left, right = companions(split)
    together = swaps.history(held.cell, held.known, left, right)
    yield from _nature("substitutes", held, made.item, made.substitute, made.together, made.expected)
    yield from _nature("companions", held, left, right, together.together, together.expected)


def _nearest_of_category(held: Shelf, factors: NDArray[np.float32]) -> Ints:
    kept = np.flatnonzero(enough(held)).astype(np.int32)
    lists = np.full((len(held.usable), later.REPAIRS), -1, np.int32)
    for item, other, _, same, rank in nearest.nearest(
        factors[kept], held.category[kept], alike=later.REPAIRS, others=1
    ):
        lists[kept[item[same]], rank[same] - 1] = kept[other[same]]
    return lists


def companions(split: later.Split) -> tuple[Ints, Ints]:
    """Pairs (anchor, companion): the first five by confidence of every known product."""
    known = np.flatnonzero(split.before.item_counts >= protocol.MIN_ORDERS).astype(np.int32)
    number = np.full(split.before.products, -1, np.int32)
    number[known] = np.arange(len(known), dtype=np.int32)
    asked = baselines.postings(split.before.holding(number, len(known)))
    lists = baselines.by_measure(asked, baselines.CONFIDENCE, top=protocol.FIRST)
    row, place = np.nonzero(lists >= 0)
    return known[row], known[lists[row, place]]


def _nature(
    name: str, held: Shelf, left: Ints, right: Ints, together: Ints, expected: NDArray[np.float64]
) -> Iterator[tuple[str, protocol.Estimate]]:
    told = (held.category[left] >= 0) & (held.category[right] >= 0)
    for measure, value, count in (
        ("same_category_share", (held.category[left] == held.category[right])[told].mean() if told.any() else 0, told),
        ("together_over_expected", together.sum() / max(expected.sum(), 1e-12), np.ones(len(left))),
    ):
        yield f"{measure}/{name}", protocol.Estimate(float(value), float(value), float(value), int(count.sum()))
