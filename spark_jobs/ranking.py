"""What to show with each anchor: table `rankings`, by the ranker of kernels/ranker.py, for each region and everywhere.

The trees are learned by one task from a bounded sample, and kept in `ranking_models`: with the same inputs, or for some
days with hardly others, they are used again. Anchors are ranked in blocks; a task holds its level's orders (about 12
bytes a line and 90 an order), 600 bytes a product and 30 MB of figures, whatever the number of anchors.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import affinity, delta, facts
from spark_jobs.facts import Job
from spark_jobs.kernels import features, ranker
from spark_jobs.kernels.features import NAMES, Evidence
from spark_jobs.kernels.history import History, history
from spark_jobs.kernels.protocol import MIN_ORDERS
from spark_jobs.kernels.ranker import Ranked
from tandem.segments import ALL

SAMPLED_ORDERS = 400_000
"""Orders that the trees are learned from; of more, whole customers are drawn by a hash."""
CHANGED_SHARE = 0.05
PRODUCTS_PER_BLOCK = 100_000
CODE = "1"
"""Changed whenever the same inputs would give another model."""
BPS = 10_000
RANKED = """cell_region string, anchor string, companion string, rank int, score double, probability double,
customers_both long, matched string, why array<string>"""
MODEL = "model binary"


def rankings(job: Job) -> tuple[DataFrame, DataFrame | None]:
    """The rankings table of the day, and its row of ranking_models where a model was learned (else None)."""
    held = orders(job).persist()
    known = products(job).persist()
    model, learned = _model(job, held, known)
    cells = held.withColumn("cell_region", F.explode(F.array("region", F.lit(ALL))))
    blocks = F.explode(F.sequence(F.lit(0), F.lit(known.count() // PRODUCTS_PER_BLOCK)))
    everywhere = [*job.regions.names, ALL]
    placed = known.withColumn("cell_region", F.explode(F.array(*[F.lit(name) for name in everywhere])))
    by = ("cell_region", "block")
    found = (
        cells.withColumn("block", blocks)
        .groupBy(*by)
        .cogroup(placed.withColumn("block", blocks).groupBy(*by))
        .applyInArrow(_ranker(job, model), RANKED)
    )
    columns = [F.lit(job.as_of).alias("as_of"), F.col("cell_region").alias("region"), F.lit(ALL).alias("segment")]
    return found.select(*columns, *delta.names(RANKED)[1:]), learned


def orders(job: Job, before: date | None = None) -> DataFrame:
    """Orders of the learning window before `before` (default: as_of): region, customer, day, skus.

    Lines that do not count and orders that are too large are left out as in `facts.baskets`.
    """
    learning = job.rules.learning
    lines = facts.lines(job, window_days=learning.window_days, before=before)
    days = lines.groupBy("region", "order_id").agg(F.min(F.unix_date(F.col("ordered_at").cast("date"))).alias("day"))
    held = facts.baskets(lines, learning.max_basket)
    return held.join(days, ["region", "order_id"]).select(
        "region", F.col("customer_id").alias("customer"), "day", "skus"
    )


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


def _model(job: Job, held: DataFrame, known: DataFrame) -> tuple[bytes | None, DataFrame | None]:
    """The model to rank with, and its row where it was learned now."""
    count = held.count()
    mark = _fingerprint(held, known)
    since = job.as_of - timedelta(days=job.rules.ranking.retrain_days)
    stored = delta.read(job.spark, job.settings, "ranking_models").where(
        (F.col("as_of") <= F.lit(job.as_of)) & (F.col("as_of") >= F.lit(since))
    )
    for row in stored.orderBy(F.col("as_of").desc()).collect():
        same = row.fingerprint == mark
        alike = abs(row.orders - count) <= CHANGED_SHARE * count and row.fingerprint.startswith(f"{CODE}-")
        if same or (row.as_of < job.as_of and alike):
            return base64.b64decode(row.model) or None, None
    model = train(held, known, count)
    row = [(job.as_of, base64.b64encode(model or b"").decode(), count, mark)]
    return model, job.spark.createDataFrame(row, "as_of date, model string, orders long, fingerprint string")


def _fingerprint(held: DataFrame, known: DataFrame) -> str:
    modulus = F.lit(2**40)
    sums = [
        frame.select(F.sum(F.pmod(F.xxhash64(*columns), modulus))).first()
        for frame, columns in ((held, held.columns), (known, ["sku", "category", "brand", "price"]))
    ]
    return f"{CODE}-" + "-".join(f"{(row[0] if row else 0) or 0:x}" for row in sums)


def train(held: DataFrame, known: DataFrame, count: int) -> bytes | None:
    """A model learned from `held` (see `orders`), sampled by customer; None where smoothed confidence does as well."""
    share = min(1.0, SAMPLED_ORDERS / max(count, 1))
    owner = F.coalesce("customer", F.concat_ws(",", "skus"))
    drawn = held.where(F.pmod(F.xxhash64(owner), F.lit(1_000_000)) < int(share * 1_000_000))
    one = F.lit(0).alias("one")
    rows = drawn.select("customer", "day", "skus", one).groupBy("one")
    (row,) = rows.cogroup(known.select("*", one).groupBy("one")).applyInArrow(_train, MODEL).collect() or [None]
    return bytes(row.model) if row is not None and row.model else None


def _train(orders: pa.Table, products: pa.Table) -> pa.Table:
    held = history(orders, products)
    model = ranker.train(held.orders, held.catalogue, min_orders=MIN_ORDERS)
    return pa.table({"model": pa.array([model or b""], pa.binary())})


Ranker = Callable[[tuple[pa.Scalar, ...], pa.Table, pa.Table], pa.Table]


def _ranker(job: Job, model: bytes | None) -> Ranker:
    k = {name: affinity.smallest_k(job, name) for name in (*job.regions.names, ALL)}
    rules = job.rules.ranking

    def rank(key: tuple[pa.Scalar, ...], orders: pa.Table, products: pa.Table) -> pa.Table:
        region, block = (part.as_py() for part in key)
        held = history(orders, products, only_listed=True).known(MIN_ORDERS)
        anchors = np.arange(held.orders.products, dtype=np.int32)
        anchors = anchors[anchors // PRODUCTS_PER_BLOCK == block]
        if not len(anchors):
            return _empty()
        known = features.evidence(held.orders, held.catalogue)
        found = ranker.rank(
            known,
            anchors,
            ranker.opened(model),
            tail_weight=rules.weight_of_tail,
            kept=rules.kept,
            worth=held.worth if rules.objective in ("revenue", "profit") else None,
        )
        return _rows(region, held, found, known, k[region], rules.weight_of_tail)

    return rank


def _schema() -> pa.Schema:
    text, number = pa.string(), pa.float64()
    kinds = (text, text, text, pa.int32(), number, number, pa.int64(), text, pa.list_(text))
    return pa.schema(list(zip(delta.names(RANKED), kinds, strict=True)))


def _empty() -> pa.Table:
    return _schema().empty_table()


def _rows(region: str, held: History, found: Ranked, known: Evidence, k: int, tail_weight: float) -> pa.Table:
    row, place = np.nonzero(found.companions >= 0)
    companion = found.companions[row, place]
    probability = found.probability[row, place].astype(np.float64).round(9)
    figures = found.figures[row, place]
    customers = np.rint(_column(figures, "customers") * (known.customers[found.anchors[row]] + 1)).astype(np.int64)
    tail = ranker.tail_of(known)
    score = probability * held.worth[companion] * np.where(tail[companion], 1.0 + tail_weight, 1.0)
    return pa.table(
        [
            pa.array([region] * len(row), pa.string()),
            held.skus.take(pa.array(found.anchors[row])),
            held.skus.take(pa.array(companion)),
            pa.array((place + 1).astype(np.int32)),
            pa.array(score.round(9)),
            pa.array(probability),
            customers,
            _matched(region, figures, customers >= k),
            _why(figures, tail[companion], customers >= k),
        ],
        schema=_schema(),
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
