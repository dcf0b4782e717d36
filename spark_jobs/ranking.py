"""What to show with each anchor: table `rankings`, by the ranker of kernels/ranker.py, for each region and everywhere.

The trees are learned by one task from a bounded sample, and kept in `ranking_models`: with the same inputs, or for some
days with hardly others, they are used again. Anchors are ranked in blocks; a task holds its level's orders (about 12
bytes a line and 90 an order), 600 bytes a product and 30 MB of figures, whatever the number of anchors.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import affinity, facts, in_tasks, order_files, parquet_files
from spark_jobs.facts import Job
from spark_jobs.kernels import days, features, ranker
from spark_jobs.kernels.features import NAMES, Evidence
from spark_jobs.kernels.history import History, history
from spark_jobs.kernels.protocol import MIN_ORDERS, first_asked_day
from spark_jobs.kernels.ranker import Ranked
from spark_jobs.kernels.shop import from_bytes, to_bytes
from tandem.segments import ALL
from warehouse import lake
from warehouse.tables import RANKING_MODELS, RANKINGS, SUBSTITUTES

SAMPLED_ORDERS = 400_000
"""Orders that the trees are learned from; of more, whole customers are drawn by a hash."""
CHANGED_SHARE = 0.05
PRODUCTS_PER_BLOCK = 100_000
CODE = "3"
"""Changed whenever the same inputs would give another model."""
BPS = 10_000
NEED = ["sku", "substitute", "apart"]
MODEL = "model binary"
HELD = "place int, name string, block int, ordered boolean, packed binary"
"""Of a cell, called by its region or `*`: orders (`ordered`; see `order_files.PACKED`) or products (in Arrow's stream
format)."""


def write(job: Job) -> None:
    """Replace the day's rows of rankings, and of ranking_models where a model was learned now.

    What is the anchor's substitute is no companion of it, unless customers like to take both (see `substitutes`).
    """
    orders = order_files.packed(job).persist()
    learned = model(job, orders)
    if learned.rows is not None:
        lake.replace(job.settings, RANKING_MODELS, learned.rows, f"as_of = '{job.as_of}'")
    known = products(job).persist()
    rows = in_cells(job, orders, known, known.count() // PRODUCTS_PER_BLOCK + 1)
    files = in_tasks.values(rows.mapInArrow(each_cell(_writer(job, learned.model)), in_tasks.VALUE))
    parquet_files.replace_day(job.settings, RANKINGS.name, job.as_of, files)


def in_cells(job: Job, orders: DataFrame, known: DataFrame, blocks: int = 1) -> DataFrame:
    """A partition for every block of every cell, everything first: its orders and the products, as rows of HELD.

    `orders` as `order_files.packed` gives them, `known` as `products`.
    """
    cells = [ALL, *job.regions.names]
    region = F.create_map(*[part for number, name in enumerate(cells) for part in (F.lit(name), F.lit(number))])
    own = orders.select(F.explode(F.array(F.lit(0), region[F.col("region")])).alias("cell"), F.lit(True), "packed")
    every = F.explode(F.sequence(F.lit(0), F.lit(len(cells) - 1)))
    wares = known.mapInArrow(_packed, "packed binary").select(every.alias("cell"), F.lit(False), "packed")
    block = F.explode(F.sequence(F.lit(0), F.lit(blocks - 1)))
    placed = own.union(wares).toDF("cell", "ordered", "packed").withColumn("block", block)
    place = F.col("cell") * blocks + F.col("block")
    name = F.array(*[F.lit(name) for name in cells])[F.col("cell")].alias("name")
    held = placed.select(place.cast("int").alias("place"), name, "block", "ordered", "packed")
    return held.repartitionById(len(cells) * blocks, "place")


def _packed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.record_batch({"packed": pa.array([to_bytes(pa.Table.from_batches([batch]))], pa.binary())})


def each_cell(kernel: Callable[[str, int, pa.Table, pa.Table], pa.Table]) -> order_files.Batches:
    """What `kernel` makes of the cell, the number of the block, the orders (packed) and the products of a partition."""

    def of_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = pa.Table.from_batches(held) if (held := list(batches)) else None
        if rows is not None:
            wares = rows.filter(pc.invert(rows["ordered"]))["packed"]
            products = pa.concat_tables([from_bytes(value.as_buffer()) for value in wares])
            name, block = rows["name"][0].as_py(), rows["block"][0].as_py()
            yield from kernel(name, block, rows.filter(rows["ordered"]), products).to_batches()

    return of_partition


def products(job: Job, before: date | None = None, *, listed: bool = True) -> DataFrame:
    """What is known of products: sku, category, brand, price (mean paid in the window), worth of a hit.

    `listed`: only those that may be bundled. `worth` follows the objective of `[ranking]`: the price, or what is left
    of it after cost (the assumed margin where cost is unknown); null where every hit is worth the same.
    """
    lines = facts.lines(job, window_days=job.rules.learning.window_days, before=before)
    paid = lines.where((F.col("quantity") > 0) & (F.col("net_cents") > 0)).groupBy("sku")
    price = paid.agg(F.avg("unit_price_cents").alias("price"))
    found = (facts.catalogue(job) if listed else job.fact("products")).join(price, "sku", "left")
    return found.select("sku", "category", "brand", "price", _worth(job).cast("double").alias("worth"))


def _worth(job: Job) -> Column:
    objective = job.rules.ranking.objective
    if objective == "revenue":
        return F.col("price")
    if objective == "profit":
        assumed = F.col("price") * job.rules.pricing.assumed_margin_bps / BPS
        return F.coalesce(F.col("price") - F.col("unit_cost_cents"), assumed)
    return F.lit(None)


@dataclass(frozen=True)
class Learned:
    """What the day's companions are ranked by, and judged by."""

    model: bytes | None
    """As `ranker.train` gives it."""
    first_asked: date
    """Learned from orders before this day, or an earlier one: those since then may be asked about."""
    rows: pa.Table | None
    """The row of ranking_models, where the model was learned now."""


def model(job: Job, orders: DataFrame) -> Learned:
    """The day's model: as stored, or one of the days before while hardly anything has changed, or learned now.

    `orders` as `order_files.packed` gives them. It is learned from the first 80 % of the window's days, so that the
    model that ranks is the one whose figures `evaluations` tells.
    """
    known, count = order_files.known_days(orders)
    first = days.of(first_asked_day(known)) if len(known) else job.as_of
    mark = _fingerprint(job)
    since = job.as_of - timedelta(days=job.rules.ranking.retrain_days)
    stored = lake.open_table(job.settings, RANKING_MODELS.name).to_pyarrow_table(
        filters=[("as_of", ">=", since), ("as_of", "<=", job.as_of)]
    )
    for row in stored.sort_by([("as_of", "descending")]).to_pylist():
        alike = abs(row["orders"] - count) <= CHANGED_SHARE * count and row["fingerprint"].startswith(f"{CODE}-")
        if row["fingerprint"] == mark or (row["as_of"] < job.as_of and alike):
            return Learned(base64.b64decode(row["model"]) or None, first, None)
    found = train(job, orders, products(job, before=first, listed=False), count, first)
    row = {"as_of": job.as_of, "model": base64.b64encode(found or b"").decode(), "orders": count, "fingerprint": mark}
    return Learned(found, first, pa.Table.from_pylist([row], lake.arrow_schema(RANKING_MODELS)))


def _fingerprint(job: Job) -> str:
    """What a model depends on: the facts' versions, who may be learned from, and how."""
    learning = job.rules.learning
    told = [dict(job.inputs), f"{job.as_of}", learning.window_days, learning.max_basket]
    told += [[region.name, *region.consent_purposes] for region in job.regions.region]
    return f"{CODE}-{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]}"


def train(job: Job, orders: DataFrame, known: DataFrame, count: int, before: date) -> bytes | None:
    """A model learned from `orders` (about `count`) before a day, sampled by customer; see `ranker.train`.

    None where smoothed confidence does as well. `known` as `products` gives them.
    """
    share, max_basket, day = SAMPLED_ORDERS / max(count, 1), job.rules.learning.max_basket, days.number(before)

    def learn(packed: pa.Table, products: pa.Table) -> pa.Table:
        rows = order_files.orders(packed, max_basket)
        held = history(rows.filter(pc.less(rows["day"], day)), products)
        learned = ranker.train(held.orders, held.catalogue, min_orders=MIN_ORDERS)
        return pa.table({"model": pa.array([learned or b""], pa.binary())})

    drawn = orders if share >= 1 else orders.mapInArrow(order_files.drawn(share), order_files.PACKED)
    one = F.lit(0).alias("one")
    found = drawn.groupBy(one).cogroup(known.groupBy(one)).applyInArrow(learn, MODEL).collect()
    return bytes(found[0].model) or None if found else None


def _writer(job: Job, learned: bytes | None) -> Callable[[str, int, pa.Table, pa.Table], pa.Table]:
    """Ranks the anchors of a block of a cell, and writes their rows as a file that no commit names yet."""
    k = {name: affinity.smallest_k(job, name) for name in (*job.regions.names, ALL)}
    rules, max_basket, as_of = job.rules.ranking, job.rules.learning.max_basket, f"{job.as_of}"
    where = order_files.folder(job.settings, RANKINGS.name)
    instead = order_files.folder(job.settings, SUBSTITUTES.name)
    apart = order_files.of_day(job.settings, SUBSTITUTES.name, job.as_of)

    def write_block(region: str, block: int, packed: pa.Table, products: pa.Table) -> pa.Table:
        held = history(order_files.orders(packed, max_basket), products, only_listed=True).known(MIN_ORDERS)
        anchors = np.arange(held.orders.products, dtype=np.int32)
        anchors = anchors[anchors // PRODUCTS_PER_BLOCK == block]
        written = []
        if len(anchors):
            known = features.evidence(held.orders, held.catalogue)
            found = ranker.rank(
                known,
                anchors,
                ranker.opened(learned),
                tail_weight=rules.weight_of_tail,
                kept=rules.kept,
                worth=held.worth if rules.objective in ("revenue", "profit") else None,
            )
            not_both = _one_need(held.skus, [rows for file in apart for rows in order_files.read(instead, file, NEED)])
            rows = _rows(region, held, found, known, k[region], rules.weight_of_tail, not_both)
            if len(rows):
                place = {"as_of": as_of, "region": region}
                written.append(parquet_files.write(where, RANKINGS, place, rows))
        return pa.Table.from_batches([in_tasks.given(written)])

    return write_block


def _one_need(skus: pa.Array, tables: list[pa.Table]) -> NDArray[np.int64]:
    """Pairs of `skus` (one's number · how many there are + the other's) that serve one need and are bought apart."""
    found = [np.empty(0, np.int64)]
    for rows in tables:
        held = rows.filter(rows["apart"])
        one, other = (pc.index_in(held[name].cast(pa.string()), skus).to_numpy() for name in ("sku", "substitute"))
        both = np.isfinite(one) & np.isfinite(other)
        one, other = one[both].astype(np.int64), other[both].astype(np.int64)
        found += [one * len(skus) + other, other * len(skus) + one]
    return np.unique(np.concatenate(found))


def _rows(
    region: str,
    held: History,
    found: Ranked,
    known: Evidence,
    k: int,
    tail_weight: float,
    not_both: NDArray[np.int64],
) -> pa.Table:
    """Rows of rankings, without those pairs of `not_both` (see `_one_need`); ranks close up."""
    pair = found.anchors[:, None].astype(np.int64) * len(held.skus) + found.companions
    kept = (found.companions >= 0) & ~np.isin(pair, not_both)
    row, place = np.nonzero(kept)
    companion = found.companions[row, place]
    probability = found.probability[row, place].astype(np.float64).round(9)
    figures = found.figures[row, place]
    customers = np.rint(_column(figures, "customers") * (known.customers[found.anchors[row]] + 1)).astype(np.int64)
    tail = ranker.tail_of(known)
    score = probability * held.worth[companion] * np.where(tail[companion], 1.0 + tail_weight, 1.0)
    return pa.table(
        {
            "segment": pa.array([ALL] * len(row), pa.string()),
            "anchor": held.skus.take(pa.array(found.anchors[row])),
            "companion": held.skus.take(pa.array(companion)),
            "rank": np.cumsum(kept, axis=1, dtype=np.int32)[row, place],
            "score": score.round(9),
            "probability": probability,
            "customers_both": customers,
            "matched": _matched(region, figures, customers >= k),
            "why": _why(figures, tail[companion], customers >= k),
        }
    )


def _column(figures: NDArray[np.float32], name: str) -> NDArray[np.float64]:
    return np.nan_to_num(figures[:, NAMES.index(name)].astype(np.float64))


def _matched(region: str, figures: NDArray[np.float32], shown: NDArray[np.bool_]) -> pa.Array:
    """The finest evidence: the pair's own orders (of k customers), what goes with its like, or popularity alone."""
    popularity = _column(figures, "popularity")
    like = np.maximum(_column(figures, "category"), _column(figures, "neighbours"))
    own = "global" if region == ALL else "region"
    return pa.array(np.where(shown, own, np.where(like > popularity, "category", "popular")), pa.string())


def _why(figures: NDArray[np.float32], tail: NDArray[np.bool_], shown: NDArray[np.bool_]) -> pa.Array:
    """Evidence in words a merchandiser can read, strongest kind first; only what holds for the pair.

    Figures of the pair's own orders are told where `shown`: where k customers stand behind them.
    """
    together = _column(figures, "together")
    popularity = _column(figures, "popularity")
    told: list[tuple[str, NDArray[Any], int, NDArray[np.bool_]]] = [
        ("orders_together", together, 0, shown),
        ("confidence", _column(figures, "confidence"), 3, shown),
        ("times_chance", np.exp(_column(figures, "lift")), 1, shown),
        ("category_confidence", _column(figures, "category"), 3, _column(figures, "category") > popularity),
        ("similar_confidence", _column(figures, "neighbours"), 3, _column(figures, "neighbours") > popularity),
        ("popularity", popularity, 3, ~tail),
    ]
    nothing = ~np.any([holds for *_, holds in told], axis=0)
    told[-1] = (*told[-1][:3], told[-1][3] | nothing)
    texts = pa.concat_arrays(
        [
            pc.binary_join_element_wise(pa.scalar(name), _decimal(values, digits), "=").cast(pa.string())
            for name, values, digits, _ in told
        ]
    )
    holds = np.stack([each for *_, each in told], axis=1)
    size = len(figures)
    row, kind = np.nonzero(holds)
    ends = np.concatenate(([0], np.cumsum(holds.sum(1)))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), texts.take(pa.array(kind * size + row)))


def _decimal(values: NDArray[np.float64], digits: int) -> pa.Array:
    if not digits:
        return pa.array(values.round().astype(np.int64)).cast(pa.string())
    scaled = np.rint(values * 10**digits).astype(np.int64)
    fraction = pc.utf8_lpad(pa.array(scaled % 10**digits).cast(pa.string()), width=digits, padding="0")
    return pc.binary_join_element_wise(pa.array(scaled // 10**digits).cast(pa.string()), fraction, ".")
