"""Which segments earn lists of their own: each is asked about later orders, beside everyone's list and a placebo.

A region is one task, which holds its orders (about 50 bytes a line and 100 an order). Blends are learned on orders
between the two cuts, segments judged on orders after the second, by models of the days before; see `kernels/placebo`. A
segment helps where its gains over everyone's list and over the placebo are both above 0 at a level that allows for the
number of segments (Bonferroni; Dunn, JASA 56, 1961).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from spark_jobs import in_tasks
from spark_jobs.cohorts import Learned
from spark_jobs.facts import Job
from spark_jobs.kernels import customers, days, placebo
from spark_jobs.kernels.cells import Ints, codes
from spark_jobs.kernels.protocol import SEED, Measure, Orders
from spark_jobs.order_files import Batches
from tandem.segments import ALL, EVERYONE
from warehouse import lake
from warehouse.tables import TABLES

Floats = NDArray[np.float64]
Cut = tuple[int, int] | None
Key = tuple[str, str, str]
"""Region, segment, kind."""

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
KNOWN = ("customer_id", "_before", "segment", "tuned", "judged")
DECIDED = ", ".join(
    [
        "region string, segment string, kind string, customers long, queries long",
        *[f"{name} double, {name}_low double, {name}_high double" for name in MEASURES],
        "weight double, tilt double, helps boolean",
    ]
)


def decisions(job: Job, held: DataFrame, labels: DataFrame, cut: Cut, learned: Learned) -> pa.Table:
    """The segment_decisions table of the day.

    `held`: rows of cohorts.HELD; `labels`: of each customer in a region, before as_of and before each day of `cut`
    (`_before`), the predicates' segment, and the learned segments `tuned` and `judged`.
    """
    found: dict[Key, dict[str, Any]] = {}
    if cut:
        regions = job.regions.names
        known = labels.select(place(regions).alias("place"), *KNOWN)
        both = held.select("place", "packed").unionByName(known, allowMissingColumns=True)
        asker = _asker(regions, cut, job.rules.learning.max_basket)
        asked = both.repartitionById(len(regions), "place").mapInArrow(asker, ASKED)
        decided = asked.groupBy(F.lit("all").alias("all")).applyInArrow(_decide, DECIDED)
        found = {_key(row): row for row in decided.toArrow().to_pylist()}
    return _rows(job, found, _wanted(job, learned), cut)


def place(regions: list[str]) -> Column:
    """The number of a row's region."""
    return (F.array_position(F.array(*[F.lit(name) for name in regions]), F.col("region")) - 1).cast("int")


def _asker(regions: list[str], cut: tuple[int, int], max_basket: int) -> Batches:
    def ask(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        both = [batch for batch in batches if len(batch)]
        if both:
            rows = pa.Table.from_batches(both)
            of_orders = pc.is_valid(rows["packed"])
            known, held = rows.filter(pc.invert(of_orders)), in_tasks.unpacked(rows["packed"].filter(of_orders))
            if held and len(known):
                region = regions[rows["place"][0].as_py()]
                yield from asked(region, customers.merged(held), known, cut, max_basket).to_batches()

    return ask


_KINDS = {"string": pa.string(), "long": pa.int64(), "double": pa.float64(), "boolean": pa.bool_()}


def _fields(ddl: str) -> list[tuple[str, str]]:
    return [(part.split()[0], part.split()[1]) for part in ddl.replace("\n", " ").split(", ")]


def asked(region: str, did: customers.Orders, known: pa.Table, cut: tuple[int, int], max_basket: int) -> pa.Table:
    """Rows of ASKED of one region: for the slice between the cuts, then for the one after. `known`: columns KNOWN."""
    schema = pa.schema([(name, _KINDS[kind]) for name, kind in _fields(ASKED)])
    held, people = customers.asked(did, max_basket)
    if not held.count:
        return schema.empty_table()
    last = held.where(held.day < cut[1])
    tuned = _labels(known, "tuned", cut[0], people, held)
    blends = _tuned(last.where(last.day < cut[0]), last.where(last.day >= cut[0]), tuned)
    told = [schema.empty_table()]
    for judged, labels, whole, begin in (
        (False, tuned, last, cut[0]),
        (True, _labels(known, "judged", cut[1], people, held), held, cut[1]),
    ):
        found = _compared(whole.where(whole.day < begin), whole.where(whole.day >= begin), labels, blends)
        for place, label in enumerate(labels):
            told.append(_told(region, judged, label, found, 2 * place, people, blends, schema))
    return pa.concat_tables(told)


class _Label(NamedTuple):
    """Who is in which segment of one kind."""

    kind: str
    names: list[str]
    of: Ints
    """Shape (customers): a place in `names`, -1 for none."""


Blends = dict[tuple[str, str], placebo.Blend]
"""By kind and segment."""


def _labels(known: pa.Table, learned: str, before: int, people: pa.Array, held: Orders) -> list[_Label]:
    """The segments of each kind as they were known before a day."""
    then = known.filter(pc.equal(known["_before"], before))
    predicted = pc.if_else(pc.equal(then["segment"], EVERYONE), pa.scalar(None, pa.string()), then["segment"])
    found = []
    for kind, rows, segment in ((KINDS[0], known, known[learned]), (KINDS[1], then, predicted)):
        place = pc.index_in(rows["customer_id"], people).fill_null(-1).to_numpy()
        here = segment.is_valid().to_numpy() & (place >= 0)
        number, names = codes(segment.filter(pa.array(here)))
        of = np.full(max(int(held.customer.max(initial=-1)) + 1, len(people)), -1, np.int32)
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
    people: pa.Array,
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
        people.take(pa.array(found.customer[mine])),
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


def _rows(job: Job, found: Mapping[Key, dict[str, Any]], wanted: Mapping[Key, str], cut: Cut) -> pa.Table:
    """segment_decisions: what was found, and every segment that has members without having been asked about."""
    columns = TABLES["segment_decisions"].columns
    nothing = {column.name: 0 for column in columns if column.type in ("double", "long")} | {"helps": False}
    before = days.of(cut[1]) if cut else job.as_of
    made = []
    for key in sorted({*found, *wanted}):
        row = nothing | dict(zip(("region", "segment", "kind"), key, strict=True)) | found.get(key, {})
        publish = wanted.get(key, "never")
        shown = publish == "always" or (publish != "never" and row["helps"])
        made.append(row | {"as_of": job.as_of, "published": shown, "learned_before": before})
    return pa.Table.from_pylist(made, schema=lake.arrow_schema(TABLES["segment_decisions"]))


def _key(row: Mapping[str, Any]) -> Key:
    return row["region"], row["segment"], row["kind"]


def _wanted(job: Job, learned: Learned) -> dict[Key, str]:
    """What segments.toml says of each segment that may be published."""
    asked = [(name, KINDS[0], job.segments.learned.publish) for name in learned.names]
    asked += [(each.name, KINDS[1], each.publish) for each in job.segments.segment]
    return {(region, name, kind): publish for region in job.regions.names for name, kind, publish in asked}


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
