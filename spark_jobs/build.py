"""All jobs by name, and a whole build in one session: what the DAG does task by task."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Mapping
from datetime import date

from pyspark.sql import SparkSession

from edge_service.lease import Held
from spark_jobs import session as sessions
from spark_jobs.facts import Job
from tandem import regions as regions_file
from tandem import rules as rules_file
from tandem import segments as segments_file
from tandem.errors import Unavailable
from tandem.release import WrongTransition
from tandem.settings import Settings
from warehouse import gate, lake

Say = Callable[[str], object]


JOBS = ("segments", "affinity", "substitutes", "elasticity", "ranking", "bundles", "pricing", "evaluation")
"""Modules whose `write` replaces its tables' rows of one day; in this order each finds what it reads."""


def evaluate(settings: Settings, as_of: date, say: Say) -> None:
    """Every measure there is for the build of a day, printed and kept in the evaluations table."""
    from spark_jobs import evaluation

    job = job_of(sessions.create(settings, f"tandem evaluate {as_of}"), settings, as_of)
    say(evaluation.told(evaluation.write(job, thorough=True)))
    chosen = job.rules.ranking
    say(f"chosen in rules.toml: objective {chosen.objective}, tail weight {chosen.weight_of_tail:g}")


def run_job(
    spark: SparkSession, settings: Settings, name: str, as_of: date, inputs: Mapping[str, int] | None = None
) -> None:
    """One job for one day, on the pinned versions of the facts (default: the newest)."""
    spark.catalog.clearCache()
    module = importlib.import_module(f"spark_jobs.{name}")  # one at a time: together they take a second
    module.write(job_of(spark, settings, as_of, inputs))


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
        from spark_jobs import publish as publishing

        publishing.everywhere(spark, settings, as_of, say)


def publish(settings: Settings, as_of: date, region: str, say: Say) -> None:
    """Publish the build of a day to one region."""
    from spark_jobs import publish as publishing

    publishing.publish(sessions.create(settings, f"tandem publish {region}"), settings, as_of, region, say)


def stage(settings: Settings, as_of: date, region: str, say: Say, *, spark: SparkSession) -> None:
    """Stage the build of a day in one region.

    One that is out of reach, and is degraded in the ledger, or has quarantined that build, is told and is no failure.
    """
    from spark_jobs import publish as publishing

    try:
        publishing.stage(spark, settings, as_of, region, say)
    except Held:
        raise
    except WrongTransition as error:
        say(f"{region}: left out: {error}")
    except Unavailable as error:
        say(f"{region}: degraded, tandem catch-up brings it up to date: {error}")


def catch_up(settings: Settings, names: list[str], say: Say, *, spark: SparkSession | None = None) -> None:
    """Bring regions that missed releases (default: all) to the newest one; Spark starts where there is one."""
    from spark_jobs import recovery

    recovery.catch_up(settings, _session(settings, "tandem catch-up", spark), say, names)


def rebuild(settings: Settings, region: str, say: Say) -> None:
    """Write what a region's Redis lost anew."""
    from spark_jobs import recovery

    recovery.rebuild(settings, _session(settings, f"tandem rebuild {region}", None), region, say)


def _session(settings: Settings, name: str, spark: SparkSession | None) -> Callable[[], SparkSession]:
    """Gives `spark`, or starts it when it is first called."""
    return functools.cache(lambda: spark or sessions.create(settings, name))
