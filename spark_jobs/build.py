"""All jobs by name, and a whole build in one session: what the DAG does task by task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import date

import pyarrow as pa
from pyspark.sql import SparkSession

from spark_jobs import (
    affinity,
    bundles,
    cold,
    delta,
    elasticity,
    evaluation,
    events,
    pricing,
    ranking,
    segments,
    substitutes,
)
from spark_jobs import publish as publishing
from spark_jobs import session as sessions
from spark_jobs.facts import Job
from tandem import regions as regions_file
from tandem import rules as rules_file
from tandem import segments as segments_file
from tandem.settings import Settings
from warehouse import gate, lake
from warehouse.tables import TABLES

Say = Callable[[str], object]


def _segments(job: Job) -> None:
    made = segments.made(job)
    _replace_day(job, "segment_decisions", made.decisions)
    _replace_day(job, "segment_models", made.models)
    segments.write(job, made.members)


def _affinity(job: Job) -> None:
    affinity.write(job)


def _substitutes(job: Job) -> None:
    substitutes.write(job)


def _elasticity(job: Job) -> None:
    _replace_day(job, "elasticities", elasticity.elasticities(job).toArrow())


def _replace_day(job: Job, name: str, rows: pa.Table) -> None:
    """Put rows that do not grow with orders or customers in the place of a day's."""
    typed = rows.select(TABLES[name].names).cast(lake.arrow_schema(TABLES[name]))
    lake.replace(job.settings, TABLES[name], typed, f"as_of = '{job.as_of}'")


def _ranking(job: Job) -> None:
    ranking.write(job)


def _bundles(job: Job) -> None:
    lists, known = bundles.arranged(job)
    bundles.replace_day(job, lists.unionByName(cold.completed(job, lists, known)))


def _pricing(job: Job) -> None:
    pricing.write(job)


def _evaluation(job: Job) -> None:
    events.collect_all(job.settings, print)
    delta.replace_day(evaluation.evaluations(job), job.settings, "evaluations", job.as_of)


def evaluate(settings: Settings, as_of: date, say: Say) -> None:
    """Every measure there is for the build of a day, printed and kept in the evaluations table."""
    from spark_jobs.kernels.protocol import Measure

    spark = sessions.create(settings, f"tandem evaluate {as_of}")
    job = job_of(spark, settings, as_of)
    delta.replace_day(evaluation.evaluations(job, thorough=True), settings, "evaluations", as_of)
    rows = delta.read_day(spark, settings, "evaluations", as_of).select(*Measure._fields).collect()
    say(evaluation.told([Measure(*row) for row in rows]))
    ranking_rules = job.rules.ranking
    say(f"chosen in rules.toml: objective {ranking_rules.objective}, tail weight {ranking_rules.weight_of_tail:g}")


JOBS: dict[str, Callable[[Job], None]] = {
    "segments": _segments,
    "affinity": _affinity,
    "substitutes": _substitutes,
    "elasticity": _elasticity,
    "ranking": _ranking,
    "bundles": _bundles,
    "pricing": _pricing,
    "evaluation": _evaluation,
}
"""Each replaces its tables' rows of one day; in this order each finds what it reads."""


def run_job(
    spark: SparkSession, settings: Settings, name: str, as_of: date, inputs: Mapping[str, int] | None = None
) -> None:
    """One job for one day, on the pinned versions of the facts (default: the newest)."""
    spark.catalog.clearCache()
    JOBS[name](job_of(spark, settings, as_of, inputs))


def job_of(spark: SparkSession, settings: Settings, as_of: date, inputs: Mapping[str, int] | None = None) -> Job:
    """What a job is given for a day, on the pinned versions of the facts (default: the newest)."""
    return Job(
        spark=spark,
        settings=settings,
        as_of=as_of,
        inputs=inputs or lake.versions(settings),
        regions=regions_file.load(settings.config_folder),
        segments=segments_file.load(settings.config_folder),
        rules=rules_file.load(settings.config_folder),
    )


def run(settings: Settings, as_of: date, say: Say, *, publish_after: bool = True) -> None:
    """A whole build in one session, gate and publishing included; a region that is down does not hold up the others."""
    lake.create(settings)  # one that an earlier Tandem made lacks the tables that came since
    inputs = lake.versions(settings)
    start = time.monotonic()
    spark = sessions.create(settings, f"tandem build {as_of}")
    say(f"spark        {time.monotonic() - start:6.1f} s")
    for name in JOBS:
        start = time.monotonic()
        run_job(spark, settings, name, as_of, inputs)
        say(f"{name:<12} {time.monotonic() - start:6.1f} s")
    gate.run(settings, as_of, say)
    if publish_after:
        publishing.everywhere(spark, settings, as_of, say)


def publish(settings: Settings, as_of: date, region: str, say: Say, *, spark: SparkSession | None = None) -> None:
    """Publish the build of a day to one region."""
    publishing.publish(spark or sessions.create(settings, f"tandem publish {region}"), settings, as_of, region, say)
