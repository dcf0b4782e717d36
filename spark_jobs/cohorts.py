"""Segments learned from what customers buy: features, centres, names that last, and who is in which.

Counting customers' purchases and assigning customers to centres is Spark's; the fit itself sees a bounded sample.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

from spark_jobs import delta, facts
from spark_jobs.facts import Job
from spark_jobs.kernels import cohorts as kernel
from spark_jobs.kernels.cells import codes
from spark_jobs.kernels.protocol import LEARNED_SHARE
from tandem import segments as segments_file
from warehouse import lake
from warehouse.tables import TABLES

MOST_FITTED = 20_000
"""Customers that centres are learned from, drawn by a hash of their id; all are assigned."""
TITLE_PARTS = 3
NAME_LEVEL = 2
"""The level of categories that names are made of, where a category has so many."""
MOVED = 1.0
"""How far a centre may have moved between slices: the next one's goes on from it, so it is likely the same."""
SLICES = ("tuned", "judged", "whole")
"""Learned from the days before the first cut, before the second, and from all: see `cuts`."""
FITTED = "slice int, cohort int, feature string, centre double, customers long"
ASSIGNED = "customer_id string, tuned string, judged string, whole string"


@dataclass(frozen=True)
class Model:
    """Learned segments of one slice. Empty `names`: there were not customers enough."""

    names: list[str]
    """A name for each centre; empty for one that the whole window does not know."""
    features: list[str]
    centres: kernel.Floats
    """Shape (names, features)."""
    customers: list[int]

    def among(self, features: Sequence[str]) -> kernel.Floats:
        """The centres in other features; one that the model does not know is 0."""
        place = {feature: number for number, feature in enumerate(self.features)}
        found = np.zeros((len(self.centres), len(features)))
        for number, feature in enumerate(features):
            if feature in place:
                found[:, number] = self.centres[:, place[feature]]
        return found


@dataclass(frozen=True)
class Learned:
    """Models by slice, the earlier build they go on from, and the segments' titles by name."""

    models: dict[str, Model]
    predecessor: date | None
    titles: dict[str, str]

    @property
    def names(self) -> list[str]:
        return self.models["whole"].names


def orders(job: Job) -> DataFrame:
    """All orders of the window, returns too: region, customer_id, day (from 1970), net_cents, bought, skus.

    bought: has a line of a positive quantity; skus: what counts as bought together. What may not be learned from is
    left out.
    """
    counts = (F.col("quantity") > 0) & (F.col("net_cents") > 0)
    return (
        facts.lines(job, window_days=job.segments.window_days)
        .groupBy("region", "order_id")
        .agg(
            F.min("customer_id").alias("customer_id"),
            F.unix_date(F.min("ordered_at").cast("date")).alias("day"),
            F.sum("net_cents").alias("net_cents"),
            (F.max("quantity") > 0).alias("bought"),
            F.collect_set(F.when(counts, F.col("sku"))).alias("skus"),
        )
        .drop("order_id")
    )


def baskets(job: Job, orders: DataFrame) -> DataFrame:
    """Those of `orders` (see above) that count: region, customer_id, day, skus."""
    held = orders.where(F.size("skus").between(1, job.rules.learning.max_basket))
    return held.select("region", "customer_id", "day", "skus")


def cuts(orders: DataFrame) -> tuple[int, int] | None:
    """Two days: what is tuned is learned before the first, what is judged before the second (80 % of the days each).

    None where there are fewer than ten days with orders.
    """
    days = sorted(row.day for row in orders.select("day").distinct().collect())
    if len(days) < 10:
        return None
    second = days[int(len(days) * LEARNED_SHARE)]
    return days[int(len(days) * LEARNED_SHARE**2)], second


def bought(job: Job, orders: DataFrame, cut: tuple[int, int] | None) -> DataFrame:
    """How often each customer bought each feature: customer_id, feature, and a count for each slice."""
    first, second = cut or (0, 0)
    line = orders.where(F.col("customer_id").isNotNull()).select("customer_id", "day", F.explode("skus").alias("sku"))
    if job.segments.learned.level:
        line = line.join(F.broadcast(_categories(job, job.segments.learned.level)), "sku")
    else:
        line = line.withColumn("feature", F.col("sku"))
    return line.groupBy("customer_id", "feature").agg(
        F.count_if(F.col("day") < first).alias("tuned"),
        F.count_if(F.col("day") < second).alias("judged"),
        F.count("*").alias("whole"),
    )


def _categories(job: Job, level: int) -> DataFrame:
    """The category of each product down to `level`: sku, feature."""
    known = job.fact("products").where(F.col("category").isNotNull())
    return known.select("sku", F.substring_index("category", " > ", level).alias("feature"))


def features(job: Job, bought: DataFrame) -> DataFrame:
    """The most bought features of each slice: slice, feature."""
    each = [F.struct(F.lit(name).alias("slice"), F.col(name).alias("count")) for name in SLICES]
    total = bought.groupBy("feature").agg(*[F.sum(name).alias(name) for name in SLICES])
    most = Window.partitionBy("slice").orderBy(F.desc("count"), "feature")
    return (
        total.select("feature", F.inline(F.array(*each)))
        .where(F.col("count") > 0)
        .withColumn("place", F.row_number().over(most))
        .where(F.col("place") <= job.segments.learned.features)
        .select("slice", "feature")
    )


def learn(job: Job, bought: DataFrame) -> Learned:
    """The models of all slices; the names of the whole window's go on from the build before, and the others' from it.

    A rerun for the same day, inputs and settings goes on from the same build as the first run did.
    """
    predecessor, earlier = _earlier(job)
    wanted = features(job, bought).groupBy("feature").agg(F.collect_set("slice").alias("slices"))
    held = bought.join(F.broadcast(wanted), "feature")
    counts = F.collect_list(F.struct("feature", "slices", *SLICES)).alias("counts")
    drawn = held.groupBy("customer_id").agg(counts).orderBy(F.xxhash64("customer_id"), "customer_id").limit(MOST_FITTED)
    found = drawn.groupBy(F.lit("all").alias("all")).applyInArrow(_fitter(job, earlier), FITTED).collect()
    models = {name: _model([row for row in found if row.slice == number]) for number, name in enumerate(SLICES)}
    taken = [*job.segments.names]
    described = _labels(job, models["whole"].features)
    whole = _named(models["whole"], earlier.get("whole", _model([])), [label for label, _ in described], taken)
    models = {name: whole if name == "whole" else _renamed(model, whole) for name, model in models.items()}
    return Learned(models, predecessor, _titles(whole, [title for _, title in described]))


def _earlier(job: Job) -> tuple[date | None, dict[str, Model]]:
    """The build to go on from, and its models: what a rerun went on from before, else the newest earlier one."""
    table = lake.open_table(job.settings, "segment_models")
    days = sorted(date.fromisoformat(part["as_of"]) for part in table.partitions())
    again = [row for row in _of_day(table, job.as_of) if row["inputs"] == _inputs(job)]
    before = [day for day in days if day < job.as_of]
    day = again[0]["predecessor"] if again else before[-1] if before else None
    rows = _of_day(table, day) if day else []
    return day, {name: _stored([row for row in rows if row["slice"] == name]) for name in SLICES} if rows else {}


def _of_day(table: DeltaTable, day: date) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pyarrow_table(filters=[("as_of", "=", day)]).to_pylist()
    return rows


def _stored(rows: Sequence[dict[str, Any]]) -> Model:
    """A model from its rows of segment_models, in any order."""
    names = sorted({row["segment"] for row in rows})
    kept = sorted({row["feature"] for row in rows})
    centres = np.zeros((len(names), len(kept)))
    for row in rows:
        centres[names.index(row["segment"]), kept.index(row["feature"])] = row["centre"]
    return Model(names, kept, centres, [0] * len(names))


def _inputs(job: Job) -> str:
    learned = msgspec.to_builtins(job.segments.learned)
    window = {"window_days": job.segments.window_days, "max_basket": job.rules.learning.max_basket}
    return json.dumps({**job.inputs, **learned, **window}, sort_keys=True)


def _fitter(job: Job, earlier: Mapping[str, Model]) -> Callable[[pa.Table], pa.Table]:
    learned = job.segments.learned
    usable = all(len(earlier[name].names) >= 2 for name in SLICES) if earlier else False
    earlier = earlier if usable and len(earlier["whole"].names) == learned.count else {}

    def fit(drawn: pa.Table) -> pa.Table:
        drawn = drawn.sort_by("customer_id")
        held = [_matrix(drawn, name) for name in SLICES]
        points = [kernel.points(matrix) for matrix, _ in held]
        slices = [(here[here.any(1)], kept) for here, (_, kept) in zip(points, held, strict=True)]
        on, worth = _chain(slices, learned, earlier)
        fresh, least = _chain(slices, learned, {})
        chosen = on if worth * kernel.BETTER <= least else fresh
        return pa.concat_tables([_fitted(n, each) for n, each in enumerate(zip(chosen, slices, strict=True))])

    return fit


def _chain(
    slices: Sequence[tuple[kernel.Floats, list[str]]], learned: segments_file.Learned, earlier: Mapping[str, Model]
) -> tuple[list[kernel.Floats], float]:
    """Centres of each slice, and the inertia of the last; nothing where `earlier` is another count of segments.

    Each starts from the same slice of the earlier build, or from the slice before it: a slice never knows of days after
    its own, and the segments of one are those of the next.
    """
    found: list[kernel.Floats] = []
    least = np.inf
    for number, (points, kept) in enumerate(slices):
        start = None
        if earlier:
            start = earlier[SLICES[number]].among(kept)
        elif number and len(found[-1]):
            before = slices[number - 1][1]
            start = Model([""] * len(found[-1]), before, found[-1], [0] * len(found[-1])).among(kept)
        centres, least = kernel.fit(points, learned.count, smallest=learned.min_customers, start=start)
        found.append(centres)
    return found, least


def _matrix(drawn: pa.Table, name: str, kept: Sequence[str] | None = None) -> tuple[kernel.Floats, list[str]]:
    """Counts of one slice, shape (customers, features), and the features (default: those of the slice, sorted)."""
    lists = drawn["counts"].combine_chunks()
    row = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy(zero_copy_only=False))
    entry = lists.flatten()
    code, keys = codes(entry.field("feature"))
    count = entry.field(name).to_numpy(zero_copy_only=False).astype(np.float64)
    if kept is None:
        of_slice = np.array([name in slices for slices in entry.field("slices").to_pylist()], bool)
        kept = keys.take(pa.array(np.unique(code[of_slice]))).to_pylist()
    place = {feature: number for number, feature in enumerate(kept)}
    column = np.array([place.get(key, -1) for key in keys.to_pylist()], np.int64)[code]
    found = np.zeros((len(lists), len(kept)))
    found[row[column >= 0], column[column >= 0]] = count[column >= 0]
    return found, list(kept)


def _fitted(number: int, fitted: tuple[kernel.Floats, tuple[kernel.Floats, list[str]]]) -> pa.Table:
    """Rows of FITTED of one slice: its centres, its points and its features."""
    centres, (points, kept) = fitted
    cohorts, width = centres.shape
    nearest = kernel.distances(points, centres).argmin(1) if cohorts else np.empty(0, np.int64)
    sizes = np.bincount(nearest, minlength=cohorts)
    columns = [
        pa.array(np.full(cohorts * width, number, np.int32)),
        pa.array(np.repeat(np.arange(cohorts, dtype=np.int32), width)),
        pa.array(list(kept) * cohorts, pa.string()),
        pa.array(centres.ravel()),
        pa.array(np.repeat(sizes.astype(np.int64), width)),
    ]
    return pa.table(columns, names=delta.names(FITTED))


def _model(rows: Sequence[Row]) -> Model:
    """A model without names from rows of FITTED, in any order."""
    kept = sorted({row.feature for row in rows})
    count = len({row.cohort for row in rows})
    centres, sizes = np.zeros((count, len(kept))), [0] * count
    place = {feature: number for number, feature in enumerate(kept)}
    for row in rows:
        centres[row.cohort, place[row.feature]] = row.centre
        sizes[row.cohort] = row.customers
    return Model([""] * count, kept, centres, sizes)


def _labels(job: Job, kept: Sequence[str]) -> list[tuple[str, str]]:
    """For each feature what a name may be made of, and what a person calls it."""
    if job.segments.learned.level:
        return [(feature.rpartition(" > ")[2], feature.rpartition(" > ")[2]) for feature in kept]
    rows = job.fact("products").where(F.col("sku").isin(list(kept))).select("sku", "title", "category").collect()
    known = {row.sku: (_named_by(row.category or row.title), row.title) for row in rows}
    return [known.get(feature, (feature, feature)) for feature in kept]


def _named_by(category: str) -> str:
    return category.split(" > ")[:NAME_LEVEL][-1]


def _named(model: Model, earlier: Model, labels: Sequence[str], taken: Sequence[str]) -> Model:
    """`model` with the names of the earlier centres that its centres are, and new names for the others."""
    if not len(model.centres):
        return model
    together = sorted({*model.features, *earlier.features})
    same = kernel.match(model.among(together), earlier.among(together))
    held = [earlier.names[number] if number >= 0 else "" for number in same]
    held = [name if name not in taken else "" for name in held]
    fresh = kernel.names(model.centres, labels, [*taken, *held])
    names = [old or new for old, new in zip(held, fresh, strict=True)]
    return Model(names, model.features, model.centres, model.customers)


def _renamed(model: Model, whole: Model) -> Model:
    """`model` of an earlier slice with the names of the whole window's centres that its centres are."""
    together = sorted({*model.features, *whole.features})
    same = kernel.match(model.among(together), whole.among(together), MOVED)
    names = [whole.names[number] if number >= 0 else "" for number in same]
    return Model(names, model.features, model.centres, model.customers)


def _titles(model: Model, called: Sequence[str]) -> dict[str, str]:
    """What each segment's customers buy more of than others: a list of features as a person calls them."""
    everywhere = model.centres.mean(0) if len(model.centres) else np.empty(0)
    found = {}
    for name, centre in zip(model.names, model.centres, strict=True):
        telling = np.argsort(everywhere - centre, kind="stable")
        named = dict.fromkeys(called[feature] for feature in telling)
        found[name] = ", ".join(list(named)[:TITLE_PARTS])
    return found


def assigned(job: Job, bought: DataFrame, learned: Learned) -> DataFrame:
    """The learned segment of each customer by slice: columns of ASSIGNED, null where there is none."""
    wanted = sorted({feature for model in learned.models.values() for feature in model.features})
    known = job.spark.createDataFrame([(feature,) for feature in wanted], "feature string")
    counts = F.collect_list(F.struct("feature", *SLICES)).alias("counts")
    held = bought.join(F.broadcast(known), "feature").groupBy("customer_id").agg(counts)
    with_past = held.join(_past(job, learned), "customer_id", "left").select("customer_id", "counts", "past")
    return with_past.mapInArrow(_assigner(learned, job.segments.learned.stickiness), ASSIGNED)


def _past(job: Job, learned: Learned) -> DataFrame:
    """The segment that each customer had in the build before: customer_id, past."""
    members = delta.read(job.spark, job.settings, "segment_members")
    day = members.where(F.col("as_of") == F.lit(learned.predecessor)) if learned.predecessor else members.limit(0)
    of_these = day.where(F.col("segment").isin(learned.names))
    return of_these.groupBy("customer_id").agg(F.min("segment").alias("past"))


def _assigner(learned: Learned, stickiness: float) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            columns = [rows["customer_id"].combine_chunks()]
            for name in SLICES:
                model = learned.models[name]
                past = rows["past"].to_pylist() if name == "whole" else [None] * len(rows)
                place = {known: number for number, known in enumerate(model.names) if known}
                before = np.array([place.get(each, -1) for each in past], np.int32)
                points = kernel.points(_matrix(rows, name, model.features)[0])
                found = kernel.assign(points, model.centres, before, stickiness)
                columns.append(
                    pa.array([model.names[each] or None if each >= 0 else None for each in found], pa.string())
                )
            yield pa.RecordBatch.from_arrays(columns, names=delta.names(ASSIGNED))

    return assign


def rows(job: Job, learned: Learned) -> pa.Table:
    """The segment_models table of the day."""
    stamp = {"as_of": job.as_of, "predecessor": learned.predecessor, "inputs": _inputs(job)}
    made = [
        {"segment": name, "slice": which, "title": learned.titles[name], "customers": size, **stamp}
        | {"feature": feature, "centre": value}
        for which, model in learned.models.items()
        for name, centre, size in zip(model.names, model.centres, model.customers, strict=True)
        for feature, value in zip(model.features, centre, strict=True)
        if name
    ]
    return pa.Table.from_pylist(made, schema=lake.arrow_schema(TABLES["segment_models"]))


def nothing() -> Learned:
    """Where no segments are learned."""
    return Learned({name: _model([]) for name in SLICES}, None, {})
