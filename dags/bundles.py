"""The DAG `bundles`: from pinned facts to published bundles, a day at a time.

Every Spark task is one call of spark-submit. Its master comes from the connection `spark_default`, jars and settings
come from spark-defaults.conf: this file is the same on a laptop and on a cluster.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

TANDEM = str(Path(sysconfig.get_path("scripts")) / "tandem")
SPARK_SUBMIT = str(Path(sysconfig.get_path("scripts")) / "spark-submit")
APPLICATION = str(Path(__file__).resolve().parent.parent / "spark_jobs" / "submit.py")

DESCRIPTION = """
# bundles

Reads the facts at pinned Delta versions, finds what sells together, makes and prices bundles, checks them against
`gates.toml`, and publishes them to every region.

* **A run is safe to repeat.** A task replaces exactly the rows of its `as_of`, so a retry, a cleared task or a backfill
  ends in the same tables and the same release.
* **A bad build stops at `gate`**, which is not tried again: no region sees it. Mend the data or the rules, then clear
  the run's tasks from the one that was wrong.
* **One writer per table**: each task takes the only slot of its table's pool, so a backfill and a run by hand take
  turns. The pools come from `airflow pools import deploy/pools.json`.
* **A release is tried first**: `stage` brings it to every region, where nobody sees it; `canary` shows it in one and
  reads the health of that region's edge for `TANDEM_CANARY_SECONDS`; `promote` shows it in the others, or a bad one is
  rolled back and quarantined, and `canary` fails. `tandem hold RELEASE --reason …` stops one on its way, `tandem go-on
  RELEASE` lets it go on.
* **A region that cannot be reached** holds up no other: the ledger calls it degraded, and `catch_up` brings it to the
  newest release in the next run, or `tandem catch-up` at once.
"""

PARAMS = {
    "as_of": Param(
        None,
        type=["null", "string"],
        format="date",
        title="Business day",
        description="Learn only from orders before this day (YYYY-MM-DD, UTC). Empty: the day of the run.",
    ),
    "regions": Param(
        [],
        type="array",
        items={"type": "string"},
        title="Regions",
        description="Publish to these regions of regions.toml only. Empty: to all. The build is always of all.",
    ),
    "publish": Param(
        True,
        type="boolean",
        title="Publish",
        description="Off: build and check, but let no region see it.",
    ),
}

DEFAULTS = {
    "owner": "tandem",
    "retries": 2,
    "retry_delay": timedelta(minutes=1),
    "execution_timeout": timedelta(minutes=15),
}

JOB_TIMEOUT = timedelta(hours=3)


class Job(SparkSubmitOperator):
    """A call of spark_jobs/submit.py. Where that ends with code 2, its data or settings are wrong and stay wrong."""

    def execute(self, context: Any) -> None:
        try:
            super().execute(context)
        except AirflowException as error:
            if "Error code is: 2." in str(error):
                raise AirflowFailException(str(error)) from error
            raise

    def get_openlineage_facets_on_start(self) -> Any:
        """What the job reads, at pinned versions, and writes; asked for only where OPENLINEAGE_URL is set."""
        from tandem import regions, settings
        from warehouse import lineage

        found, arguments = settings.from_environment(), list(self.application_args)
        told = dict(zip(arguments[1::2], arguments[2::2], strict=True))
        pinned = json.loads(told.get("--inputs", "{}"))
        flow = lineage.JOBS.get(arguments[0]) or lineage.Flow(lineage.PUBLISHED, ())
        reads = [lineage.dataset(found, table, pinned.get(table)) for table in flow.reads]
        writes = [lineage.dataset(found, table) for table in flow.writes]
        if "--region" in told:
            writes += lineage.of_region(regions.load(found.config_folder).get(told["--region"]))
        return _told_by_openlineage(reads, writes)


def _told_by_openlineage(reads: Iterable[Any], writes: Iterable[Any]) -> Any:
    """Datasets of warehouse/lineage.py as Airflow's provider of OpenLineage tells them."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

    def made(found: Any) -> Dataset:
        version = (
            {"version": DatasetVersionDatasetFacet(datasetVersion=str(found.version))}
            if found.version is not None
            else {}
        )
        return Dataset(found.namespace, found.name, facets=version)

    return OperatorLineage(inputs=[made(each) for each in reads], outputs=[made(each) for each in writes])


@task(multiple_outputs=True)
def pin_inputs(*, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
    """Fix what the whole run works on: the day, the facts' Delta versions, the regions."""
    from tandem import regions, settings
    from warehouse import lake

    with _wrong_is_not_tried_again():
        found = settings.from_environment()
        known = regions.load(found.config_folder)
        lake.create(found)  # a lake that an earlier Tandem made lacks the tables that came since
        return {
            "as_of": _day(params["as_of"], dag_run).isoformat(),
            "inputs": json.dumps(lake.versions(found), sort_keys=True),
            "regions": [known.get(name).name for name in params["regions"] or known.names],
        }


@task(retries=0)
def gate(as_of: str, regions: list[str], *, params: Any = None) -> list[list[str]]:
    """Check the build of the day; what `stage` is called with for each region, or nothing."""
    import logging

    from tandem import settings
    from warehouse import gate as gates

    with _wrong_is_not_tried_again():
        gates.run(settings.from_environment(), date.fromisoformat(as_of), logging.getLogger("tandem.gate").info)
    return [["stage", "--as-of", as_of, "--region", region] for region in regions] if params["publish"] else []


@task(retries=0, execution_timeout=JOB_TIMEOUT)
def canary(as_of: str, regions: list[str]) -> list[dict[str, str]]:
    """Try what was staged in one region; what `promote` is called with for each region that has it."""
    from tandem import settings
    from warehouse import gate as gates
    from warehouse import ledger

    found = settings.from_environment()
    release_id = gates.built(found, date.fromisoformat(as_of))
    _tandem("canary", release_id, *(f"--region={region}" for region in regions))
    away = ("", "approved", "degraded", "quarantined")
    there = [region for region in regions if ledger.state(found, region, release_id) not in away]
    return [{"release_id": release_id, "region": region} for region in there]


@task(map_index_template="{{ task.op_kwargs['region'] }}")
def promote(release_id: str, region: str) -> None:
    """Show one region's shoppers what did well on trial."""
    from tandem import settings
    from warehouse import ledger

    if ledger.current(settings.from_environment(), region) != release_id:
        _tandem("release", "promote", release_id, "--region", region, "--reason", "did well on trial")


@task(trigger_rule="none_failed_min_one_success")
def missed(as_of: str, regions: list[str]) -> list[list[str]]:
    """What `catch_up` is called with for each region that missed a release."""
    from tandem import settings
    from warehouse import ledger

    found = ledger.degraded(settings.from_environment())
    return [["catch-up", "--as-of", as_of, "--region", region] for region in regions if region in found]


def _tandem(*arguments: str) -> None:
    """Run the `tandem` command; what it prints is told in the log. Raises AirflowException with what it calls wrong."""
    import logging

    done = subprocess.run([TANDEM, *arguments], capture_output=True, text=True, check=False)
    logging.getLogger("tandem").info(done.stdout)
    if done.returncode:
        raise AirflowException(done.stderr.strip().removeprefix("Error: "))


def _day(given: str | None, dag_run: Any) -> date:
    """The business day: as given, else that of the run (a run by hand has no logical date)."""
    return date.fromisoformat(given) if given else (dag_run.logical_date or dag_run.run_after).date()


@contextmanager
def _wrong_is_not_tried_again() -> Iterator[None]:
    """Data or settings that are wrong stay wrong: fail at once. A server out of reach may come back."""
    from tandem.errors import TandemError, Unavailable

    try:
        yield
    except Unavailable:
        raise
    except TandemError as error:
        raise AirflowFailException(str(error)) from error


def _spark(job: str, table: str, pinned: Any) -> Job:
    """One job of spark_jobs/submit.py, which alone writes `table` while it runs."""
    return Job(
        task_id=job,
        application=APPLICATION,
        application_args=[job, "--as-of", pinned["as_of"], "--inputs", pinned["inputs"]],
        name=f"tandem {job}",
        spark_binary=SPARK_SUBMIT,
        pool=f"tandem_{table}",
        execution_timeout=JOB_TIMEOUT,
    )


def _in_regions(task_id: str) -> Any:
    """A job that is called once a region."""
    return Job.partial(
        task_id=task_id,
        application=APPLICATION,
        name=f"tandem {task_id}",
        spark_binary=SPARK_SUBMIT,
        pool="tandem_releases",
        execution_timeout=JOB_TIMEOUT,
        map_index_template="{{ task.application_args[-1] }}",
    )


@dag(
    dag_id="bundles",
    schedule="0 3 * * *",
    start_date=datetime(2017, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=PARAMS,
    tags=["tandem", "spark"],
    doc_md=DESCRIPTION,
)
def bundles() -> None:
    pinned = pin_inputs()
    segments = _spark("segments", "segment_members", pinned)
    affinity = _spark("affinity", "affinity", pinned)
    substitutes = _spark("substitutes", "substitutes", pinned)
    elasticity = _spark("elasticity", "elasticities", pinned)
    ranking = _spark("ranking", "rankings", pinned)
    made = _spark("bundles", "bundles", pinned)
    pricing = _spark("pricing", "bundles", pinned)
    evaluation = _spark("evaluation", "evaluations", pinned)
    passed = gate(pinned["as_of"], pinned["regions"])
    staged = _in_regions("stage").expand(application_args=passed)
    tried = canary(pinned["as_of"], pinned["regions"])
    promoted = promote.expand_kwargs(tried)
    behind = missed(pinned["as_of"], pinned["regions"])
    caught_up = _in_regions("catch_up").expand(application_args=behind)
    segments >> affinity >> made >> pricing
    segments >> substitutes >> ranking >> made
    segments >> elasticity >> pricing
    pricing >> evaluation >> passed >> staged >> tried
    promoted >> behind >> caught_up


bundles()
