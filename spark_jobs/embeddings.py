"""Products whose buyers are alike: item factors by ALS (`implicit`), and each product's nearest neighbours.

Hu, Koren & Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008. Neighbours of the same category
repair a bundle; neighbours of other categories confirm a companion where counts are thin.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs import facts, order_files
from spark_jobs.facts import Job
from spark_jobs.kernels import cells
from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.nearest import nearest

FACTORS, ITERATIONS, SEED = 48, 8, 7
MIN_ORDERS = 5
"""Products in fewer orders have no factors worth comparing."""
THREADS = 2
"""Each row of factors is solved by itself, so threads change no number."""
OTHERS, ALIKE = 20, 10
"""Neighbours kept of other categories, and of the same."""
FOUND = "sku string, neighbour string, similarity double, same_category boolean, rank int"


def neighbours(job: Job) -> DataFrame:
    """The neighbours table of the day. All regions learn together: one matrix, one task (80 bytes an entry)."""
    product = facts.catalogue(job).select("sku", F.coalesce("category", F.lit("")).alias("category"))
    max_basket = job.rules.learning.max_basket

    def find(packed: pa.Table, products: pa.Table) -> pa.Table:
        return _found(order_files.orders(packed, max_basket), products)

    bought, known = (rows.groupBy(F.lit("all").alias("all")) for rows in (order_files.packed(job), product))
    found = bought.cogroup(known).applyInArrow(find, FOUND)
    return found.select(F.lit(job.as_of).alias("as_of"), "sku", "neighbour", "similarity", "same_category", "rank")


def _found(bought: pa.Table, products: pa.Table) -> pa.Table:
    cell = cells.cell(bought["customer"], bought["skus"])
    place = pc.index_in(cell.skus, products["sku"].combine_chunks())
    usable = pc.is_valid(place).to_numpy(zero_copy_only=False) & (cell.item_counts >= MIN_ORDERS)
    kept = np.flatnonzero(usable)
    skus = cell.skus.take(pa.array(kept))
    category = cells.codes(products["category"].take(place.take(pa.array(kept))))[0]
    vectors = of_cell(cell, usable)[kept]
    parts = list(nearest(vectors, category, alike=ALIKE, others=OTHERS))
    left, right, similarity, same, rank = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pa.table(
        {
            "sku": skus.take(pa.array(left)),
            "neighbour": skus.take(pa.array(right)),
            "similarity": similarity.astype(np.float64),
            "same_category": same,
            "rank": rank.astype(np.int32),
        }
    )


def of_cell(cell: cells.Cell, kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Unit vectors of a cell's `kept` items, shape (items, FACTORS); zeros for the others."""
    number = np.full(len(kept), -1, np.int32)
    number[kept] = np.arange(int(kept.sum()), dtype=np.int32)
    owner = np.repeat(cell.order_customer, np.diff(cell.order_starts))
    item = number[cell.order_items]
    vectors = np.zeros((len(kept), FACTORS), np.float32)
    if kept.any():
        owners = int(cell.order_customer.max(initial=0)) + 1
        vectors[kept] = factors(owner[item >= 0], item[item >= 0], owners, int(kept.sum()))
    return vectors


def factors(owner: Ints, item: Ints, owners: int, items: int) -> NDArray[np.float32]:
    """Unit vectors of shape (items, FACTORS) from one (customer, item) a line, in any order.

    A customer's interest in an item is 1 + ln(orders of it).
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    bought = csr_matrix((np.ones(len(item), np.float32), (owner, item)), shape=(owners, items))
    bought.sum_duplicates()
    bought.data = 1 + np.log(bought.data)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=FACTORS, iterations=ITERATIONS, regularization=0.05, random_state=SEED, num_threads=THREADS
        )
        model.fit(bought, show_progress=False)
    vectors = np.asarray(model.item_factors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
