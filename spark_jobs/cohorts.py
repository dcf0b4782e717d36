"""Segments learned from what customers buy: features, centres, names that last, and who is in which.

Workers read the files of sales_lines themselves and send packed orders to one task for each region, which keeps them in
blocks of whole customers; all else is made from those, a block at a time. The fit sees a bounded sample.

Memory: a task that reads holds a million lines (about 100 bytes each) or a row group, one that joins the orders of its
region (about 50 bytes a line and 100 an order); one that counts holds a block, a million lines or one customer's, and
where customers are compared by categories 100 bytes a product. The one that chooses features holds some 60 bytes a
feature and block.
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
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from spark_jobs import delta, in_tasks, order_files, parquet_files
from spark_jobs.facts import Job
from spark_jobs.kernels import cohorts as kernel
from spark_jobs.kernels import customers, days
from spark_jobs.kernels.protocol import LEARNED_SHARE, first_asked_day
from spark_jobs.order_files import Batches, Files
from spark_jobs.parquet_files import Held
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
LINES = ["order_id", "ordered_at", "sku", "quantity", "net_cents", "customer_id"]
PACKED = "place int, packed binary"
HELD = "place int, region string, days array<int>, packed binary"
"""Orders of a region: its number, its name, the days (from 1970-01-01) of its baskets, and `customers.Orders`."""
TOTALS = "packed binary"
"""Arrow: how often each feature was bought, by slice."""
CHOSEN = "slice string, feature string"
BOUGHT = "customer_id string, counts array<struct<feature:int,tuned:long,judged:long,whole:long>>"
"""feature: a number in the list that was asked for; one may come more than once, and adds up."""
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
    """All orders of the window, returns too, as rows of HELD: blocks of whole customers, a region in one partition.

    What may not be learned from is left out.
    """
    found = order_files.plan(job, job.segments.window_days, in_segments=False)
    files = order_files.for_tasks(job, order_files.sales_files(job, found))
    packed = in_tasks.each(job.spark, files, _reader(found, job.regions.names), PACKED)
    joined = packed.repartitionById(len(job.regions.names), "place")
    return joined.mapInArrow(_joiner(job.regions.names, job.rules.learning.max_basket), HELD)


def _reader(found: order_files.Plan, regions: list[str]) -> Callable[[Files], Iterator[pa.RecordBatch]]:
    def read_files(tasks: Files) -> Iterator[pa.RecordBatch]:
        for files in tasks:
            for region, rows in order_files.window(found, files, LINES):
                place = pa.array([regions.index(region)], pa.int32())
                yield _batch([place, in_tasks.packed([customers.packed(rows, region)])], PACKED)

    return read_files


def _joiner(regions: list[str], max_basket: int) -> Batches:
    def join(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held = [batch for batch in batches if len(batch)]
        if held:
            place = held[0]["place"][:1]
            region = regions[place[0].as_py()]
            whole = customers.merged([part for batch in held for part in in_tasks.unpacked(batch["packed"])])
            for block in customers.blocks(whole, order_files.LINES):
                known = pa.array([np.unique(block.day[block.baskets(max_basket)])], pa.list_(pa.int32()))
                yield _batch([place, [region], known, in_tasks.packed([block])], HELD)

    return join


def _batch(columns: list[Any], ddl: str) -> pa.RecordBatch:
    return pa.record_batch([pa.array(values) for values in columns], names=delta.names(ddl))


def cuts(held: DataFrame) -> tuple[int, int] | None:
    """Two days: what is tuned is learned before the first, what is judged before the second (80 % of the days each).

    Of rows of HELD; None where there are fewer than ten days with orders.
    """
    known = np.unique([day for row in held.select("days").collect() for day in row.days])
    if len(known) < 10:
        return None
    return first_asked_day(known, LEARNED_SHARE**2), first_asked_day(known)


@dataclass(frozen=True)
class Counting:
    """How often features were bought: products themselves (`level` 0), or their categories down to a level."""

    level: int
    products: Held
    before: tuple[int, int, int]
    """The day that each of SLICES ends before."""
    max_basket: int

    def features(self, skus: pa.Array) -> pa.Array:
        """The feature of each product; null where it has none."""
        if not self.level:
            return skus
        known = self.products.rows(["sku", "category"])
        paths = known["category"].combine_chunks().dictionary_encode()
        cut = [" > ".join(path.split(" > ")[: self.level]) for path in paths.dictionary.to_pylist()]
        return pa.array(cut, pa.string()).take(paths.indices.take(pc.index_in(skus, known["sku"])))

    def counted(self, held: customers.Orders, wanted: pa.Array | None = None) -> tuple[customers.Counted, pa.Array]:
        """Counts of the features `wanted` (default: all), and what their numbers stand for."""
        features = self.features(held.skus)
        named = pc.unique(features.drop_null()) if wanted is None else wanted
        number = pc.index_in(features, named).fill_null(-1).to_numpy(zero_copy_only=False)
        return customers.counted(held, number, self.before, self.max_basket), named


def counting(job: Job, cut: tuple[int, int] | None) -> Counting:
    """How the job counts features."""
    return Counting(
        job.segments.learned.level,
        parquet_files.held(job.settings, "products", job.inputs.get("products")),
        (*(cut or (0, 0)), days.number(job.as_of)),
        job.rules.learning.max_basket,
    )


def features(job: Job, held: DataFrame, how: Counting) -> dict[str, list[str]]:
    """The most bought features of each slice, sorted."""
    chooser = _chooser(job.segments.learned.features)
    found = held.mapInArrow(_totaller(how), TOTALS).groupBy().applyInArrow(chooser, CHOSEN).collect()
    return {name: sorted(row.feature for row in found if row.slice == name) for name in SLICES}


def _totaller(how: Counting) -> Batches:
    def total(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for held in in_tasks.unpacked(batch["packed"]):
                found, names = how.counted(held)
                sums = [np.bincount(found.feature, count, len(names)).astype(np.int64) for count in found.counts.T]
                yield _batch([in_tasks.packed([pa.table([names, *sums], ["feature", *SLICES])])], TOTALS)

    return total


def _chooser(most: int) -> Callable[[pa.Table], pa.Table]:
    def choose(rows: pa.Table) -> pa.Table:
        total = pa.concat_tables(in_tasks.unpacked(rows["packed"])).group_by("feature")
        sums = total.aggregate([(name, "sum") for name in SLICES])
        chosen = []
        for name in SLICES:
            best = sums.sort_by([(f"{name}_sum", "descending"), ("feature", "ascending")])[:most]
            own = best.filter(pc.greater(best[f"{name}_sum"], 0))["feature"]
            chosen.append(pa.table([pa.array([name] * len(own), pa.string()), own], delta.names(CHOSEN)))
        return pa.concat_tables(chosen)

    return choose


def bought(held: DataFrame, how: Counting, wanted: Sequence[str]) -> DataFrame:
    """How often each customer bought the features `wanted`: rows of BOUGHT, one a customer."""
    found = held.mapInArrow(_counter(how, wanted), BOUGHT)
    return found.groupBy("customer_id").agg(F.flatten(F.collect_list("counts")).alias("counts"))


def _counter(how: Counting, wanted: Sequence[str]) -> Batches:
    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for held in in_tasks.unpacked(batch["packed"]):
                found, _ = how.counted(held, pa.array(wanted, pa.string()))
                first = np.flatnonzero(np.diff(found.customer, prepend=-1))
                entry = pa.StructArray.from_arrays([found.feature, *found.counts.T], ["feature", *SLICES])
                counts = pa.ListArray.from_arrays(np.append(first, len(entry)).astype(np.int32), entry)
                yield _batch([held.customers.take(pa.array(found.customer[first])), counts], BOUGHT)

    return count


def learn(job: Job, bought: DataFrame, wanted: Sequence[str], features: Mapping[str, Sequence[str]]) -> Learned:
    """The models of all slices; the names of the whole window's go on from the build before, and the others' from it.

    `features` are those of each slice, `wanted` all that `bought` numbers. A rerun for the same day, inputs and
    settings goes on from the same build as the first run did.
    """
    predecessor, earlier = _earlier(job)
    drawn = bought.orderBy(F.xxhash64("customer_id"), "customer_id").limit(MOST_FITTED)
    fitter = _fitter(job, earlier, wanted, features)
    found = drawn.groupBy(F.lit("all").alias("all")).applyInArrow(fitter, FITTED).collect()
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


def _fitter(
    job: Job, earlier: Mapping[str, Model], wanted: Sequence[str], features: Mapping[str, Sequence[str]]
) -> Callable[[pa.Table], pa.Table]:
    learned = job.segments.learned
    usable = all(len(earlier[name].names) >= 2 for name in SLICES) if earlier else False
    earlier = earlier if usable and len(earlier["whole"].names) == learned.count else {}

    def fit(drawn: pa.Table) -> pa.Table:
        drawn = drawn.sort_by("customer_id")
        present = {wanted[number] for number in pc.unique(_entries(drawn).field("feature")).to_pylist()}
        kept = [[feature for feature in features[name] if feature in present] for name in SLICES]
        points = [kernel.points(_matrix(drawn, name, wanted, own)) for name, own in zip(SLICES, kept, strict=True)]
        slices = [(here[here.any(1)], own) for here, own in zip(points, kept, strict=True)]
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


def _matrix(rows: pa.Table, name: str, wanted: Sequence[str], kept: Sequence[str]) -> kernel.Floats:
    """Counts of one slice, shape (customers, `kept`), from rows of BOUGHT, whose features are numbers in `wanted`."""
    row = np.repeat(np.arange(len(rows)), pc.list_value_length(rows["counts"]).to_numpy())
    entry = _entries(rows)
    place = {feature: number for number, feature in enumerate(kept)}
    column = np.array([place.get(feature, -1) for feature in wanted], np.int64)[entry.field("feature").to_numpy()]
    found = np.zeros((len(rows), len(kept)))
    np.add.at(found, (row[column >= 0], column[column >= 0]), entry.field(name).to_numpy()[column >= 0])
    return found


def _entries(rows: pa.Table) -> pa.StructArray:
    return rows["counts"].combine_chunks().flatten()


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
    products = lake.open_table(job.settings, "products", job.inputs.get("products")).to_pyarrow_dataset()
    rows = products.to_table(["sku", "title", "category"], pc.field("sku").isin(list(kept))).to_pylist()
    known = {row["sku"]: (_named_by(row["category"] or row["title"]), row["title"]) for row in rows}
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


def assigned(job: Job, bought: DataFrame, wanted: Sequence[str], learned: Learned) -> DataFrame:
    """The learned segment of each customer by slice: columns of ASSIGNED, null where there is none."""
    with_past = bought.withColumn("past", F.lit(None).cast("string"))
    if learned.predecessor:
        with_past = bought.join(_past(job, learned), "customer_id", "left")
    assigner = _assigner(learned, job.segments.learned.stickiness, wanted)
    return with_past.select("customer_id", "counts", "past").mapInArrow(assigner, ASSIGNED)


def _past(job: Job, learned: Learned) -> DataFrame:
    """The segment that each customer had in the build before: customer_id, past."""
    members = delta.read(job.spark, job.settings, "segment_members")
    of_these = members.where((F.col("as_of") == F.lit(learned.predecessor)) & F.col("segment").isin(learned.names))
    return of_these.groupBy("customer_id").agg(F.min("segment").alias("past"))


def _assigner(learned: Learned, stickiness: float, wanted: Sequence[str]) -> Batches:
    def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            columns = [rows["customer_id"].combine_chunks()]
            for name in SLICES:
                model = learned.models[name]
                past = rows["past"].to_pylist() if name == "whole" else [None] * len(rows)
                place = {known: number for number, known in enumerate(model.names) if known}
                before = np.array([place.get(each, -1) for each in past], np.int32)
                points = kernel.points(_matrix(rows, name, wanted, model.features))
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
