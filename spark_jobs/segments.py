"""Which customer is in which segment, learned or by a predicate of segments.toml, and which segments are published.

Memory: see `cohorts` and `trial`; a task that reads customers holds a million of them or a row group with their
attributes, one that writes members its region's (about 60 bytes each).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import cohorts, delta, in_tasks, order_files, parquet_files, trial
from spark_jobs.facts import Job
from spark_jobs.kernels import customers, days
from spark_jobs.kernels.protocol import Measure
from spark_jobs.order_files import Batches
from tandem import config
from tandem.errors import ConfigError
from tandem.money import EXPONENTS
from tandem.segments import ALL, EVERYONE, Segment
from warehouse.tables import SEGMENT_MEMBERS

BEHAVIOUR = """region string, customer_id string, _before int, recency_days int, frequency long, spend_cents long,
spend double"""
"""Of a customer in a region, before the day `_before` (from 1970-01-01): spend is in major units."""


@dataclass(frozen=True)
class Made:
    """The rows of one day of segment_members, segment_models and segment_decisions."""

    members: DataFrame
    models: pa.Table
    decisions: pa.Table


def write(job: Job) -> None:
    """Replace the day's rows of segment_decisions, segment_models and segment_members."""
    found = made(job)
    delta.put_day(found.decisions, job.settings, "segment_decisions", job.as_of)
    delta.put_day(found.models, job.settings, "segment_models", job.as_of)
    _write_members(job, found.members)


def made(job: Job) -> Made:
    """All that is known of segments on the day: who is in which, what they are, which of them help.

    Raises ConfigError naming the segment whose predicate is no SQL or names what is not there.
    """
    names = _names(job)
    segment = _segment(job, names)
    held = cohorts.orders(job).persist()
    cut = cohorts.cuts(held)
    learned, assigned = _learned(job, held, cut)
    matched = behaviour(job, held, cut).join(_attributes(job, names), "customer_id", "left")
    labels = (
        matched.select(*delta.names(BEHAVIOUR), segment.alias("segment"))
        .join(assigned, "customer_id", "left")
        .persist()
    )
    decided = trial.decisions(job, held, labels, cut, learned)
    return Made(_members(job, labels), cohorts.rows(job, learned), decided)


def members(job: Job) -> DataFrame:
    """One row per region and customer with an order in the window: segment_members."""
    return made(job).members


def _write_members(job: Job, members: DataFrame) -> None:
    """Replace the day's rows of segment_members, a file for each region; a task holds its region's rows."""
    regions, where = job.regions.names, order_files.folder(job.settings, SEGMENT_MEMBERS.name)
    day = {"as_of": f"{job.as_of}"}

    def write_region(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held = [batch for batch in batches if len(batch)]
        if held:
            rows = pa.Table.from_batches(held)
            region = {"region": regions[rows["place"][0].as_py()]}
            kept = rows.drop_columns(["place", "as_of", "region"])
            file = parquet_files.write(where, SEGMENT_MEMBERS, day | region, kept)
            yield in_tasks.given([file])

    placed = members.withColumn("place", trial.place(regions)).repartitionById(len(regions), "place")
    files = in_tasks.values(placed.mapInArrow(write_region, in_tasks.VALUE))
    parquet_files.replace_day(job.settings, SEGMENT_MEMBERS.name, job.as_of, files)


def published(job: Job) -> DataFrame:
    """The segments that have lists of their own on the day: region, segment, tilt. All others are served by `*`.

    tilt: how far the segment's own popularity goes into a ranking, see `kernels/tilt`.
    """
    decided = delta.read_day(job.spark, job.settings, "segment_decisions", job.as_of)
    return decided.where(F.col("published") & (F.col("region") != ALL)).select("region", "segment", "tilt")


def evaluated(job: Job) -> list[Measure]:
    """What segment_decisions of the day say, as rows of evaluations: see `trial.measures`."""
    return trial.measures(delta.read_day(job.spark, job.settings, "segment_decisions", job.as_of).collect())


def _learned(job: Job, held: DataFrame, cut: tuple[int, int] | None) -> tuple[cohorts.Learned, DataFrame]:
    """The learned segments, and the learned segment of each customer by slice."""
    if not job.segments.learned.count:
        return cohorts.nothing(), job.spark.createDataFrame([], cohorts.ASSIGNED)
    how = cohorts.counting(job, cut)
    features = cohorts.features(job, held, how)
    wanted = sorted({feature for own in features.values() for feature in own})
    bought = cohorts.bought(held, how, wanted).persist()
    learned = cohorts.learn(job, bought, wanted, features)
    return learned, cohorts.assigned(job, bought, wanted, learned)


def _members(job: Job, labels: DataFrame) -> DataFrame:
    matched = F.when(F.col("segment") != EVERYONE, F.col("segment"))
    order = (F.col("whole"), matched) if job.segments.first == "learned" else (matched, F.col("whole"))
    return labels.where(F.col("_before") == days.number(job.as_of)).select(
        F.lit(job.as_of).alias("as_of"),
        "region",
        F.coalesce(*order, F.lit(EVERYONE)).alias("segment"),
        "customer_id",
        "recency_days",
        "frequency",
        "spend_cents",
    )


def behaviour(job: Job, held: DataFrame, cut: tuple[int, int] | None) -> DataFrame:
    """Rows of BEHAVIOUR of `cohorts.orders`: before as_of, and before each day of `cut`."""
    before = sorted({*(cut or ()), days.number(job.as_of)})
    units = {region.name: 10 ** EXPONENTS[region.currency] for region in job.regions.region}
    return held.select("region", "packed").mapInArrow(_behaver(before, units), BEHAVIOUR)


def _behaver(before: list[int], units: dict[str, int]) -> Batches:
    def behave(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for region, held in zip(batch["region"].to_pylist(), in_tasks.unpacked(batch["packed"]), strict=True):
                for day in before:
                    customer, *did = customers.behaviour(held, day)
                    who = held.customers.take(pa.array(customer))
                    here, then = [region] * len(who), pa.array([day] * len(who), pa.int32())
                    columns = [pa.array(here, pa.string()), who, then, *did, did[-1] / units[region]]
                    yield pa.record_batch([pa.array(each) for each in columns], names=delta.names(BEHAVIOUR))

    return behave


def _names(job: Job) -> list[str]:
    """The attributes that the customers file has."""

    def named(rows: pa.Table) -> pa.Table:
        return pa.table([pc.unique(_pairs(rows).field("name"))], ["name"])

    found = order_files.of_table(job, "customers", ["attributes"], named, "name string").distinct().collect()
    return sorted({row.name for row in found} - set(delta.names(BEHAVIOUR)))


def _attributes(job: Job, names: list[str]) -> DataFrame:
    """One column per attribute of the customers file."""

    def columns(rows: pa.Table) -> pa.Table:
        pairs, of = _pairs(rows), pc.list_parent_indices(rows["attributes"]).to_numpy()
        found = [rows["customer_id"].cast(pa.string())]
        for name in names:
            own = np.flatnonzero(pc.equal(pairs.field("name"), name).to_numpy(zero_copy_only=False))
            place = np.full(len(rows), -1)
            place[of[own][::-1]] = own[::-1]  # the first of a name, should there be two
            found.append(pairs.field("value").take(pa.array(place, mask=place < 0)))
        return pa.table(found, ["customer_id", *names])

    wanted = ["customer_id", "attributes"]
    return order_files.of_table(job, "customers", wanted, columns, ", ".join(["customer_id string", *_typed(names)]))


def _pairs(rows: pa.Table) -> pa.StructArray:
    return pc.list_flatten(rows["attributes"]).combine_chunks()


def _typed(names: list[str]) -> list[str]:
    return [f"`{name.replace('`', '``')}` string" for name in names]


def _segment(job: Job, names: list[str]) -> Column:
    """The segment whose predicate over behaviour and attributes matches first.

    Raises ConfigError naming the segment whose predicate is no SQL or names what is not there.
    """
    known = job.spark.createDataFrame([], ", ".join([BEHAVIOUR, *_typed(names)]))
    found = F.lit(EVERYONE)
    for wanted in reversed(job.segments.segment):
        if set(wanted.requires) <= set(known.columns):
            found = F.when(_predicate(job, wanted, known), F.lit(wanted.name)).otherwise(found)
    return found


def _predicate(job: Job, segment: Segment, known: DataFrame) -> Column:
    predicate = F.expr(segment.where)
    try:
        kind = known.select(predicate.alias("holds")).schema["holds"].dataType.simpleString()
    except (AnalysisException, ParseException) as error:
        wrong = next(line for line in str(error).splitlines() if line.strip())
        raise ConfigError(_mend(job, segment, known, wrong)) from error
    if kind != "boolean":
        raise ConfigError(_mend(job, segment, known, f"gives {kind}, not true or false"))
    return F.coalesce(predicate, F.lit(False))


def _mend(job: Job, segment: Segment, known: DataFrame, wrong: str) -> str:
    path = config.path_of(job.settings.config_folder, "segments.toml")
    usable = ", ".join(sorted(set(known.columns) - {"customer_id", "region", "_before", "spend_cents"}))
    return f"{path}: key segment {segment.name!r} where: {wrong}; columns it may use: {usable}"
