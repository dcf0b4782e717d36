"""Which segments earn lists of their own: each is asked about later orders, beside everyone's list and a placebo.

A region is one task. Blends are learned on orders between the two cuts, segments judged on orders after the second, by
models of the days before; see `kernels/placebo`. A segment helps where its gains over everyone's list and over the
placebo are both above 0 at a level that allows for the number of segments (Bonferroni; Dunn, JASA 56, 1961).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from spark_jobs import delta
from spark_jobs.cohorts import Learned
from spark_jobs.facts import Job
from spark_jobs.kernels import placebo
from spark_jobs.kernels.cells import Ints, codes
from spark_jobs.kernels.protocol import SEED, Measure, Orders, orders_of
from tandem.segments import ALL, EVERYONE
from warehouse.tables import TABLES

Floats = NDArray[np.float64]

KINDS = ("learned", "predicate")
POLICY = "policy"
"""Publish what helped between the cuts, judge it after the second: what publishing by evidence is worth."""
LEVEL = 0.05
FEWEST_CUSTOMERS = 20
"""Nothing is said of a segment with fewer customers asked."""
RESAMPLES = 400
MOST_TUNED = 12_000
"""Different (anchor, customer) of a region that blends are learned from."""
ASKED = """region string, judged boolean, kind string, segment string, customer string, queries long, everyone long,
mine long, shuffled long, weight double, tilt double"""
MEASURES = ("hit_everyone", "hit_segment", "hit_placebo", "gain", "placebo_gain")
EACH = dict(
    zip(
        MEASURES,
        ("hit@5/global", "hit@5/segment", "hit@5/placebo", "segment_gain/global", "segment_gain/placebo"),
        strict=True,
    )
)
"""Metrics of a segment."""
TOGETHER = {
    "hit_everyone": "own_left_out_hit@5_global",
    "hit_segment": "own_left_out_hit@5_segment",
    "hit_placebo": "own_left_out_hit@5_placebo",
    "gain": "gain",
    "placebo_gain": "placebo_gain",
}
"""Metrics of all segments of a kind."""
DECIDED = ", ".join(
    [
        "region string, segment string, kind string, customers long, queries long",
        *[f"{name} double, {name}_low double, {name}_high double" for name in MEASURES],
        "weight double, tilt double, helps boolean",
    ]
)


def decisions(
    job: Job,
    orders: DataFrame,
    labels: DataFrame,
    earlier: list[DataFrame],
    cut: tuple[int, int] | None,
    learned: Learned,
) -> DataFrame:
    """The segment_decisions table of the day. `earlier`: the predicates' segments before each cut; may be empty."""
    known = labels.select("region", "customer_id", *_columns_learned())
    for name, before in zip(("tuned_predicate", "judged_predicate"), earlier, strict=False):
        segment = F.when(F.col("segment") != EVERYONE, F.col("segment"))
        known = known.join(
            before.select("region", "customer_id", segment.alias(name)), ["region", "customer_id"], "left"
        )
    for name in ("tuned_predicate", "judged_predicate")[len(earlier) :]:
        known = known.withColumn(name, F.lit(None).cast("string"))
    known = known.toDF(*known.columns)  # columns of their own: both sides of the cogroup come from the same orders
    found = orders.groupBy("region").cogroup(known.groupBy("region")).applyInArrow(_asker(cut), ASKED)
    decided = found.groupBy(F.lit("all").alias("all")).applyInArrow(_decide, DECIDED)
    return _rows(job, decided, _wanted(job, learned), cut)


def _columns_learned() -> list[object]:
    return [F.col("tuned").alias("tuned_learned"), F.col("judged").alias("judged_learned")]


def _asker(cut: tuple[int, int] | None) -> Callable[[pa.Table, pa.Table], pa.Table]:
    def ask(orders: pa.Table, known: pa.Table) -> pa.Table:
        schema = pa.schema([(name, _KINDS[kind]) for name, kind in _fields(ASKED)])
        if cut is None or not len(orders) or not len(known):
            return schema.empty_table()
        return pa.concat_tables([schema.empty_table(), *_asked(orders, known, cut, schema)])

    return ask


_KINDS = {"string": pa.string(), "long": pa.int64(), "double": pa.float64(), "boolean": pa.bool_()}


def _fields(ddl: str) -> list[tuple[str, str]]:
    return [(part.split()[0], part.split()[1]) for part in ddl.replace("\n", " ").split(", ")]


def _asked(orders: pa.Table, known: pa.Table, cut: tuple[int, int], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows of ASKED of one region: for the slice between the cuts, then for the one after."""
    held, customers = _held(orders)
    last = held.where(held.day < cut[1])
    tuned = _labels(known, "tuned", customers, held)
    blends = _tuned(last.where(last.day < cut[0]), last.where(last.day >= cut[0]), tuned)
    for judged, labels, whole, begin in (
        (False, tuned, last, cut[0]),
        (True, _labels(known, "judged", customers, held), held, cut[1]),
    ):
        found = _compared(whole.where(whole.day < begin), whole.where(whole.day >= begin), labels, blends)
        for place, label in enumerate(labels):
            yield _told(known["region"][0].as_py(), judged, label, found, 2 * place, customers, blends, schema)


class _Label(NamedTuple):
    """Who is in which segment of one kind."""

    kind: str
    names: list[str]
    of: Ints
    """Shape (customers): a place in `names`, -1 for none."""


Blends = dict[tuple[str, str], placebo.Blend]
"""By kind and segment."""


def _held(orders: pa.Table) -> tuple[Orders, pa.Array]:
    """The orders of a region, and its customers in the order of their numbers; orders of nobody have numbers after."""
    lists = orders["skus"].combine_chunks()
    sizes = lists.value_lengths().to_numpy(zero_copy_only=False)
    items, keys = codes(lists.flatten())
    customer, customers = _owners(orders["customer_id"].combine_chunks())
    line = np.repeat(np.arange(len(lists)), sizes)
    day = orders["day"].to_numpy().astype(np.int32)
    return orders_of(line, items, customer[line], day[line], len(keys)), customers


def _owners(customer: pa.Array) -> tuple[Ints, pa.Array]:
    nobody = customer.is_null().to_numpy(zero_copy_only=False)
    number, known = codes(customer.drop_null())
    found = np.empty(len(customer), np.int32)
    found[~nobody] = number
    found[nobody] = len(known) + np.arange(int(nobody.sum()))
    return found, known


def _labels(known: pa.Table, when: str, customers: pa.Array, held: Orders) -> list[_Label]:
    place = pc.index_in(known["customer_id"].combine_chunks(), customers).fill_null(-1).to_numpy(zero_copy_only=False)
    found = []
    for kind in KINDS:
        segment = known[f"{when}_{kind}"].combine_chunks()
        here = segment.is_valid().to_numpy(zero_copy_only=False) & (place >= 0)
        number, names = codes(segment.filter(pa.array(here)))
        of = np.full(max(int(held.customer.max(initial=-1)) + 1, len(customers)), -1, np.int32)
        of[place[here]] = number
        found.append(_Label(kind, names.to_pylist(), of))
    return found


def _tuned(before: Orders, after: Orders, labels: list[_Label]) -> Blends:
    """The best blend of each segment on the slice between the cuts."""
    grid = placebo.grid()
    width = max(len(label.names) for label in labels) or 1
    of = np.stack([label.of for label in labels])
    every = np.broadcast_to(np.array(grid), (len(labels), width, len(grid), 2))
    found = placebo.asked(before, after, of, every[..., 0], every[..., 1], MOST_TUNED)
    best = [placebo.chosen(found, of, place, len(label.names)) for place, label in enumerate(labels)]
    return {
        (label.kind, name): grid[place]
        for label, places in zip(labels, best, strict=True)
        for name, place in zip(label.names, places, strict=True)
    }


def _compared(before: Orders, after: Orders, labels: list[_Label], blends: Blends) -> placebo.Asked:
    """Hits of each kind's segments and, after each, of its placebo."""
    width = max(len(label.names) for label in labels) or 1
    chosen = np.full((2 * len(labels), width, 2), placebo.USUAL, np.float64)
    for place, label in enumerate(labels):
        for number, name in enumerate(label.names):
            chosen[2 * place : 2 * place + 2, number] = blends.get((label.kind, name), placebo.USUAL)
    of = np.stack([each for label in labels for each in (label.of, placebo.shuffled(label.of))])
    return placebo.asked(before, after, of, chosen[:, :, :1], chosen[:, :, 1:])


def _told(
    region: str,
    judged: bool,
    label: _Label,
    found: placebo.Asked,
    place: int,
    customers: pa.Array,
    blends: Blends,
    schema: pa.Schema,
) -> pa.Table:
    mine = np.flatnonzero(label.of[found.customer] >= 0)
    names = [label.names[number] for number in label.of[found.customer[mine]]]
    used = [blends.get((label.kind, name), placebo.USUAL) for name in names]
    columns: list[object] = [
        [region] * len(mine),
        [judged] * len(mine),
        [label.kind] * len(mine),
        names,
        customers.take(pa.array(found.customer[mine])),
        found.queries[mine],
        found.everyone[mine],
        found.segments[mine, place, 0],
        found.segments[mine, place + 1, 0],
        [blend.weight for blend in used],
        [blend.tilt for blend in used],
    ]
    return pa.table([pa.array(each, kind) for each, kind in zip(columns, schema.types, strict=True)], schema=schema)


def _decide(asked: pa.Table) -> pa.Table:
    """Rows of DECIDED from rows of ASKED of all regions."""
    asked = asked.sort_by([(name, "ascending") for name in ("kind", "judged", "region", "customer", "segment")])
    rows: list[dict[str, object]] = []
    for kind in KINDS:
        of_kind = asked.filter(pc.equal(asked["kind"], kind))
        early, late = (of_kind.filter(pc.equal(of_kind["judged"], judged)) for judged in (False, True))
        rows += _judged(late, kind)
        if kind == KINDS[0] and len(early) and len(late):
            rows += _judged(_by_policy(early, late), POLICY, each=False)
    kinds = {name: _KINDS[kind] for name, kind in _fields(DECIDED)}
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})


def _by_policy(early: pa.Table, late: pa.Table) -> pa.Table:
    """`late` as if those segments had been published that helped in `early`; the others' customers get everyone's."""
    helped = {(row["region"], row["segment"]) for row in _judged(early, KINDS[0]) if row["helps"]}
    pairs = zip(late["region"].to_pylist(), late["segment"].to_pylist(), strict=True)
    keep = pa.array([pair in helped for pair in pairs], pa.bool_())
    for name in ("mine", "shuffled"):
        place = late.column_names.index(name)
        late = late.set_column(place, name, pc.if_else(keep, late[name], late["everyone"]))
    return late


def _judged(asked: pa.Table, kind: str, *, each: bool = True) -> list[dict[str, object]]:
    """The measures of every segment in every region, and of `*`: all segments, all regions."""
    region, regions = codes(asked["region"])
    segment, segments = codes(asked["segment"])
    hits = np.stack([asked[name].to_numpy() for name in ("queries", "everyone", "mine", "shuffled")], 1).astype(float)
    owner = codes(asked["customer"])[0]
    blend = np.stack([asked[name].to_numpy() for name in ("weight", "tilt")], 1)
    found = []
    sure = 1 - LEVEL / 2 / max(len(segments), 1)
    for place, name in enumerate([*segments.to_pylist(), ALL] if each else [ALL]):
        mine = (segment == place) | (name == ALL)
        if not mine.any():
            continue
        everywhere = _measured(hits[mine], owner[mine], sure)
        for number, where in enumerate([*regions.to_pylist(), ALL]):
            here = mine & ((region == number) | (where == ALL))
            if here.any():
                row = everywhere if where == ALL else _measured(hits[here], owner[here], sure)
                helps = row.helps or (everywhere.helps and row.values["gain"][0] > 0)
                weight, tilt = np.average(blend[here], axis=0, weights=np.maximum(hits[here, 0], 1))
                found.append(
                    {"region": where, "segment": name, "kind": kind, "weight": weight, "tilt": tilt, "helps": helps}
                    | row.columns()
                )
    return found


class _Measured(NamedTuple):
    customers: int
    queries: int
    values: dict[str, tuple[float, float, float]]
    helps: bool

    def columns(self) -> dict[str, object]:
        named = {
            f"{name}{end}": value
            for name, measured in self.values.items()
            for end, value in zip(("", "_low", "_high"), measured, strict=True)
        }
        return {"customers": self.customers, "queries": self.queries} | named


def _measured(hits: Floats, owner: Ints, sure: float) -> _Measured:
    """Measures with their 95 % intervals from (queries, everyone, mine, shuffled) of each row; rows of one `owner`
    are one customer's. It helps if both gains are above 0 at the level `sure`, by the gains' deviation over customers
    (the ratio estimator's; Cochran, Sampling Techniques, 1977, 6.3)."""
    owner = np.unique(owner, return_inverse=True)[1]
    each = np.stack([np.bincount(owner, column) for column in hits.T], 1)
    asked = each[:, 0]
    sums = np.stack([each[:, 1], each[:, 2], each[:, 3], each[:, 2] - each[:, 1], each[:, 2] - each[:, 3]], 1)
    total = max(asked.sum(), 1.0)
    mean = sums.sum(0) / total
    draws = np.random.default_rng(SEED).multinomial(len(each), np.full(len(each), 1 / len(each)), RESAMPLES)
    low, high = np.quantile(draws @ sums / np.maximum(draws @ asked, 1)[:, None], (0.025, 0.975), axis=0)
    values = {name: (float(mean[n]), float(low[n]), float(high[n])) for n, name in enumerate(MEASURES)}
    error = np.sqrt(((sums - mean * asked[:, None]) ** 2).sum(0)) / total
    bound = mean - NormalDist().inv_cdf(sure) * error
    helps = len(each) >= FEWEST_CUSTOMERS and bool((bound[3:] > 0).all())
    return _Measured(len(each), int(asked.sum()), values, helps)


def _rows(job: Job, decided: DataFrame, wanted: DataFrame, cut: tuple[int, int] | None) -> DataFrame:
    """segment_decisions: what was found, and every segment that has members without having been asked about."""
    before = date(1970, 1, 1) + timedelta(days=cut[1]) if cut else job.as_of
    key = ["region", "segment", "kind"]
    every = decided.join(wanted, key, "full").withColumn("helps", F.coalesce("helps", F.lit(False)))
    publish = F.col("publish")
    shown = F.when(publish == "always", True).when(publish == "never", False).otherwise(F.col("helps"))
    rows = every.withColumn("published", F.coalesce(shown & publish.isNotNull(), F.lit(False)))
    numbers = [column.name for column in TABLES["segment_decisions"].columns if column.type in ("double", "long")]
    return rows.fillna(0, numbers).select(
        F.lit(job.as_of).alias("as_of"),
        *delta.names(DECIDED),
        "published",
        F.lit(before).alias("learned_before"),
    )


def _wanted(job: Job, learned: Learned) -> DataFrame:
    """What segments.toml says of each segment that may be published: region, segment, kind, publish."""
    asked: list[tuple[str, str, str]] = [(name, KINDS[0], job.segments.learned.publish) for name in learned.names]
    asked += [(each.name, KINDS[1], each.publish) for each in job.segments.segment]
    rows = [(region, *each) for region in job.regions.names for each in asked]
    return job.spark.createDataFrame(rows, "region string, segment string, kind string, publish string")


def measures(rows: Sequence[Row]) -> list[Measure]:
    """Rows of segment_decisions as measures.

    Of each segment, all regions together: `hit@5/segment`, `/global`, `/placebo`, `segment_gain/global`, `/placebo`,
    and `published/segment`, the share of regions that publish it. Of all segments of a kind, by region: the same as
    `own_left_out_hit@5_…/KIND`, since they are not those of the other rankings' protocol, and `gain/KIND`,
    `placebo_gain/KIND`; the kind `policy` is what publishing by evidence is worth on days later than the evidence.
    """
    asked = [row for row in rows if row.queries]
    found = []
    for row in (row for row in asked if row.segment != ALL and row.region == ALL):
        found += [_measure(row, name, metric) for name, metric in EACH.items()]
        shown = [other.published for other in rows if _same(other, row) and other.region != ALL]
        share = sum(shown) / max(len(shown), 1)
        found.append(Measure(ALL, row.segment, "published/segment", share, share, share, row.queries))
    for row in (row for row in asked if row.segment == ALL):
        found += [_measure(row, name, f"{metric}/{row.kind}") for name, metric in TOGETHER.items()]
    return found


def _same(row: Row, other: Row) -> bool:
    return (row.segment, row.kind) == (other.segment, other.kind)


def _measure(row: Row, name: str, metric: str) -> Measure:
    values = (row[name], row[f"{name}_low"], row[f"{name}_high"])
    return Measure(row.region, row.segment, metric, *values, row.queries)
