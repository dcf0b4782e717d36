"""What sells together: exact counts and measures per region × segment × anchor × companion, at every level.

Two stages. Readers take files of sales_lines from the lake, join lines to orders and send each counter all orders,
packed (about 4 bytes a line and 40 an order). Counters each count a share of the anchors at all levels and write their
rows as files of the lake; the driver makes them the day's rows in one commit. Nothing else is shared between machines.
On one machine all of it is one task: its threads read, and then count, the orders that they share.

Memory of a reader: a million lines (about 60 bytes each). Memory of a counter: 12 bytes a line and 90 an order while
it joins, then 4 and 40; 12 bytes an item and level; 12 bytes a line of its own anchors; 250 bytes a pair that it gives.
With 3 million orders of 9 products one that counts all anchors stays below 2 GB; of several each has fewer.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from spark_jobs import in_tasks, order_files, parquet_files
from spark_jobs.facts import Job
from spark_jobs.kernels import baskets as kernel_baskets
from spark_jobs.kernels import lines, measures, pairs, threads
from spark_jobs.kernels.shop import from_bytes, to_bytes
from spark_jobs.order_files import File, Files, Folder, Plan
from spark_jobs.parquet_files import Written
from tandem.segments import ALL
from warehouse.tables import AFFINITY


@dataclass(frozen=True)
class Counting:
    """What a counter needs to know beside the orders."""

    where: Folder
    as_of: str
    k: dict[str, int]
    """Region (or `*`) to the customers that a pair needs there."""
    levels: tuple[str, ...]
    """Which levels to give: `segment`, `region`, `global`."""
    top: int
    damping: float
    decay: lines.Decay
    max_basket: int
    max_item_orders: int
    blocks: int


Batches = Callable[[Any], Iterator[pa.RecordBatch]]
Task = Callable[[Any], tuple[set[int], list[lines.Part]]]
"""From what a task is given to its blocks of anchors, and all orders (none: no orders)."""
LEVELS = ("segment", "region", "global")
PACKED = "block int, part binary"
GIVEN = "pairs binary"
PAIRS = {
    "anchor": pa.dictionary(pa.int32(), pa.string()),
    "companion": pa.dictionary(pa.int32(), pa.string()),
    "orders_both": pa.int32(),
    "rank": pa.int32(),
}


@dataclass(frozen=True)
class Counted:
    """What a counter did."""

    written: list[Written]
    rows: int
    left_out: lines.LeftOut
    peak_bytes: int
    """The most memory that the worker's process has had."""


def write(job: Job, levels: tuple[str, ...] = LEVELS) -> Counted | None:
    """Replace the day's rows of the affinity table: the `top` companions of every anchor, of those with k customers.

    Gives what was counted and what the caps of `[learning]` left out (also kept with the commit); None: no orders.
    """
    done = counted(job, levels)
    files = [file for each in done for file in each.written]
    left_out = done[0].left_out if done else None
    parquet_files.replace_day(
        job.settings, AFFINITY.name, job.as_of, files, {"left_out": asdict(left_out)} if left_out else {}
    )
    if left_out is None:
        return None
    if left_out.large_orders or left_out.popular_items:
        print(_told(job, left_out))  # noqa: T201 - a job's log is its output
    return Counted(files, sum(each.rows for each in done), left_out, max(each.peak_bytes for each in done))


def counted(job: Job, levels: tuple[str, ...] = LEVELS) -> list[Counted]:
    """Count all orders of the window and write the rows of `levels` as files that no commit names yet."""
    found = _blocks(job, levels, _writer, in_tasks.VALUE)
    return in_tasks.values(found) if found is not None else []


def companions(job: Job) -> pa.Table:
    """The `top` companions of every anchor by the orders of everything that hold both, whoever bought them.

    Columns anchor, companion (texts by dictionary), orders_both and rank; counted now, nothing is written. It all
    comes to the driver, 16 bytes a row: what grows with segments and regions, and what is published, is for `write`.
    """
    found = _blocks(job, LEVELS[-1:], _giver, GIVEN, customers=False)
    rows = in_tasks.collected(found) if found is not None else []
    empty = pa.schema(list(PAIRS.items())).empty_table()
    return pa.concat_tables([empty, *(from_bytes(row.pairs) for row in rows)]).unify_dictionaries()


def _blocks(
    job: Job,
    levels: tuple[str, ...],
    how: Callable[[Counting, Task], Batches],
    schema: str,
    *,
    customers: bool = True,
) -> DataFrame | None:
    """What `how` gives for each block of anchors, of orders with their `customers` or without; None: no orders."""
    plan = order_files.plan(job, job.rules.learning.window_days, in_segments=LEVELS[0] in levels)
    files = order_files.sales_files(job, plan)
    if not files:
        return None
    counters = order_files.tasks_at_once(job)
    counting = _counting(job, levels, counters)
    if on_one_machine(job):
        read = _read(plan, order_files.dealt(files, counters), counters, customers=customers)
        return in_tasks.each(job.spark, [None], how(counting, read), schema)
    pack = _packer(plan, counters, customers=customers)
    packed = in_tasks.each(job.spark, order_files.for_tasks(job, files), pack, PACKED)
    return packed.repartitionById(counters, "block").mapInArrow(how(counting, _sent), schema)


def on_one_machine(job: Job) -> bool:
    """Whether Spark's tasks are threads of this machine; settings do not tell: a job may be submitted elsewhere."""
    return str(job.spark.conf.get("spark.master")).startswith("local[")


def smallest_k(job: Job, region: str) -> int:
    """Customers a pair needs in a cell of `region`; at the level of everything, the k of the least careful region.

    Publishing to a region checks that region's own k again.
    """
    return job.regions.get(region).k if region != ALL else min(region.k for region in job.regions.region)


def _counting(job: Job, levels: tuple[str, ...], blocks: int) -> Counting:
    learning = job.rules.learning
    return Counting(
        where=order_files.folder(job.settings, AFFINITY.name),
        as_of=f"{job.as_of}",
        k={name: smallest_k(job, name) for name in (*job.regions.names, ALL)},
        levels=levels,
        top=learning.top,
        damping=learning.popularity_damping,
        decay=lines.decay(job.as_of, learning.window_days, learning.half_life_days),
        max_basket=learning.max_basket,
        max_item_orders=learning.max_item_orders,
        blocks=blocks,
    )


def _told(job: Job, left_out: lines.LeftOut) -> str:
    learning = job.rules.learning
    return (
        f"left out of pair counting: {left_out.large_orders} of {left_out.orders} orders with more than "
        f"{learning.max_basket} products ({left_out.large_order_lines} of {left_out.lines} lines), and "
        f"{left_out.popular_items} products in more than {learning.max_item_orders} orders "
        f"({left_out.popular_item_lines} lines)"
    )


def _packer(plan: Plan, blocks: int, *, customers: bool) -> Callable[[Files], Iterator[pa.RecordBatch]]:
    """Rows of PACKED for each task's files: every counter gets all orders."""

    def pack(tasks: Files) -> Iterator[pa.RecordBatch]:
        for files in tasks:
            for part in order_files.parts(plan, files, customers=customers):
                packed = in_tasks.packed([part])
                for block in range(blocks):
                    yield pa.record_batch({"block": pa.array([block], pa.int32()), "part": packed})

    return pack


def _writer(how: Counting, orders_of: Task) -> Batches:
    """What was Counted for each block of anchors of a task, whose rows are written."""

    def write_blocks(task: Any) -> Iterator[pa.RecordBatch]:
        blocks, parts = orders_of(task)
        if parts:
            held, cells, left_out = lines.joined(parts, **_caps(how))
            parts.clear()
            levels = _levels(cells)
            rows = threads.each(blocks, lambda block: _of_block(how, held, levels, left_out, block))
            yield in_tasks.given(rows)

    return write_blocks


def _giver(how: Counting, orders_of: Task) -> Batches:
    """A row of GIVEN for each block of anchors of a task."""

    def give_blocks(task: Any) -> Iterator[pa.RecordBatch]:
        blocks, parts = orders_of(task)
        if parts:
            orders, _, _, _ = lines.merged(parts, **_caps(how))
            parts.clear()
            yield pa.record_batch({"pairs": threads.each(blocks, lambda block: _best(how, orders, block))})

    return give_blocks


def _caps(how: Counting) -> dict[str, Any]:
    return {"decay": how.decay, "max_basket": how.max_basket, "max_item_orders": how.max_item_orders}


def _read(plan: Plan, files: list[list[File]], blocks: int, *, customers: bool) -> Task:
    """All blocks and the orders of all files, a thread for each group of them."""

    def read_files(_: Any) -> tuple[set[int], list[lines.Part]]:
        parts = threads.each(files, lambda group: list(order_files.parts(plan, group, customers=customers)))
        return set(range(blocks)), list(chain.from_iterable(parts))

    return read_files


def _sent(packed: Iterator[pa.RecordBatch]) -> tuple[set[int], list[lines.Part]]:
    """The block that all rows of PACKED are for, and their orders."""
    parts: list[lines.Part] = []
    blocks: set[int] = set()
    for batch in packed:
        blocks |= set(batch["block"].to_pylist())
        parts += in_tasks.unpacked(batch["part"])
    return blocks, parts


def _of_block(
    how: Counting, held: kernel_baskets.Baskets, levels: lines.Cells, left_out: lines.LeftOut, block: int
) -> Counted:
    """Count a block's anchors over all orders and write their rows."""
    k = np.array([_needed(how, region, segment) for region, segment in levels], np.int32)
    found = pairs.count(held, k=k, top=how.top, damping=how.damping, block=block, blocks=how.blocks)
    found = found[np.argsort(found["level"], kind="stable")]
    return Counted(list(_written(how, held, levels, found)), len(found), left_out, _peak_bytes())


def _best(how: Counting, orders: kernel_baskets.Orders, block: int) -> bytes:
    """The companions of a block's anchors over all orders: a table of PAIRS."""
    found = pairs.count_orders(orders, top=how.top, block=block, blocks=how.blocks)
    columns = [*(_coded(found[name], orders.skus) for name in ("anchor", "companion"))]
    columns += [pa.array(found["orders"]), pa.array(found["rank"])]
    return to_bytes(pa.table(columns, list(PAIRS)))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _levels(cells: lines.Cells) -> lines.Cells:
    """Region and segment of every level, as `Baskets` numbers them."""
    return [*cells, *((region, ALL) for region in sorted({region for region, _ in cells})), (ALL, ALL)]


def _needed(how: Counting, region: str, segment: str) -> int:
    level = LEVELS[2] if region == ALL else LEVELS[1] if segment == ALL else LEVELS[0]
    return how.k[region] if level in how.levels else kernel_baskets.NOBODY


def _written(how: Counting, held: kernel_baskets.Baskets, levels: lines.Cells, found: np.ndarray) -> Iterator[Written]:
    """A file for each region that has rows."""
    totals = _Totals(held)
    of_level = np.searchsorted(found["level"], np.arange(len(levels) + 1))
    for region in sorted({region for region, _ in levels}):
        own = [level for level, (name, _) in enumerate(levels) if name == region]
        rows = np.concatenate([found[of_level[level] : of_level[level + 1]] for level in own])
        if len(rows):
            table = _table(how, held, totals, levels, rows)
            yield parquet_files.write(how.where, AFFINITY, {"as_of": how.as_of, "region": region}, table)


class _Totals:
    """Orders and weights by level, and by level and item."""

    def __init__(self, held: kernel_baskets.Baskets) -> None:
        self.orders, self.weight = held.level_orders(), held.level_weights()
        self.item_orders, self.item_weight = held.item_counts


def _table(
    how: Counting, held: kernel_baskets.Baskets, totals: _Totals, levels: lines.Cells, rows: np.ndarray
) -> pa.Table:
    level, anchor, companion = rows["level"], rows["anchor"], rows["companion"]
    n, c = totals.orders[level], rows["orders"].astype(np.int64)
    a, b = totals.item_orders[level, anchor].astype(np.int64), totals.item_orders[level, companion].astype(np.int64)
    unit = how.decay.unit
    return pa.table(
        {
            "segment": _coded(level, pa.array([segment for _, segment in levels])),
            "anchor": _coded(anchor, held.skus),
            "companion": _coded(companion, held.skus),
            "orders_total": n,
            "orders_anchor": a,
            "orders_companion": b,
            "orders_both": c,
            "customers_both": rows["customers"].astype(np.int64),
            "orders_anchor_first": rows["before"].astype(np.int64),
            "orders_companion_first": rows["after"].astype(np.int64),
            "decayed_total": totals.weight[level] / unit,
            "decayed_anchor": totals.item_weight[level, anchor] / unit,
            "decayed_companion": totals.item_weight[level, companion] / unit,
            "decayed_both": rows["decayed"] / unit,
            "support": measures.support(c, n),
            "confidence": measures.confidence(c, a),
            "lift": measures.lift(c, a, b, n),
            "npmi": measures.npmi(c, a, b, n),
            "llr": measures.llr(c, a, b, n),
            "score": rows["value"] / a,
            "rank": _ranks(level, anchor),
        }
    )


def _coded(number: np.ndarray, values: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(number.astype(np.int32)), values)


def _ranks(level: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """1, 2, 3 … within each run of the same level and anchor."""
    firsts = np.flatnonzero((np.diff(level, prepend=-1) != 0) | (np.diff(anchor, prepend=-1) != 0))
    lengths = np.diff(np.append(firsts, len(anchor)))
    return (np.arange(len(anchor)) - np.repeat(firsts, lengths) + 1).astype(np.int32)
