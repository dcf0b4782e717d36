"""The DAG `bundles`: what it is made of, and what happens to a bad build. Airflow is imported inside fixtures only."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy import airflow
from tandem import regions
from tandem.settings import Settings
from warehouse import lake, lineage

pytestmark = pytest.mark.airflow

ROOT = Path(__file__).resolve().parents[2]
JOBS = [
    "segments",
    "affinity",
    "substitutes",
    "elasticity",
    "ranking",
    "bundles",
    "pricing",
    "evaluation",
]
RELEASING = ["stage", "canary", "promote", "missed", "catch_up"]
"""What follows the gate, each after the one before."""
READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
bag = DagBag(dag_folder=sys.argv[1])
dag = bag.dags.get("bundles")
DagSerialization.serialize_dag(dag)
print("ANSWER", json.dumps({
    "errors": bag.import_errors,
    "max_active_runs": dag.max_active_runs,
    "catchup": dag.catchup,
    "doc": dag.doc_md,
    "tags": sorted(dag.tags),
    "params": {name: {"value": p.value, **p.schema, "description": p.description} for name, p in
               ((name, dag.params.get_param(name)) for name in dag.params)},
    "tasks": {task.task_id: {
        "upstream": sorted(task.upstream_task_ids),
        "downstream": sorted(task.downstream_task_ids),
        "pool": task.pool,
        "retries": task.retries,
        "retry_delay": task.retry_delay.total_seconds(),
        "timeout": task.execution_timeout.total_seconds(),
        "trigger": task.trigger_rule.value,
        "mapped": type(task).__name__.endswith("MappedOperator"),
        "application": getattr(task, "application", None),
        "spark_binary": getattr(task, "_spark_binary", None),
    } for task in dag.tasks},
}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An Airflow of its own, prepared once, over a lake with every table and no row."""
    found = Settings(home=tmp_path_factory.mktemp("airflow-home"))
    lake.create(found)
    airflow.setup(found, print)
    return found


@pytest.fixture(scope="module")
def dag(home: Settings) -> dict[str, Any]:
    """The DAG as Airflow reads it from the folder, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(ROOT / "dags")],
        env=airflow.environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    found: dict[str, Any] = json.loads(answer[0].removeprefix("ANSWER "))
    return found


def test_the_folder_is_read_without_an_error(dag: dict[str, Any]) -> None:
    assert dag["errors"] == {}
    assert set(dag["tasks"]) == {"pin_inputs", *JOBS, "gate", *RELEASING}
    assert dag["doc"]
    assert "tandem" in dag["tags"]


def test_each_job_waits_for_what_it_reads_and_the_gate_for_all(dag: dict[str, Any]) -> None:
    upstream = {name: set(task["upstream"]) - {"pin_inputs"} for name, task in dag["tasks"].items()}
    assert upstream["segments"] == set()
    assert upstream["affinity"] == {"segments"}
    assert upstream["elasticity"] == {"segments"}
    assert upstream["substitutes"] == {"segments"}
    assert upstream["ranking"] == {"substitutes"}
    assert upstream["bundles"] == {"affinity", "ranking"}
    assert upstream["pricing"] == {"bundles", "elasticity"}
    assert upstream["evaluation"] == {"pricing"}
    assert upstream["gate"] == {"evaluation"}
    for before, after in itertools.pairwise(["gate", *RELEASING]):
        assert upstream[after] == {before}


def test_every_job_works_on_what_was_pinned(dag: dict[str, Any]) -> None:
    assert all("pin_inputs" in dag["tasks"][job]["upstream"] for job in [*JOBS, "gate"])


def test_only_catching_up_is_a_leaf_and_no_task_runs_after_a_failure(dag: dict[str, Any]) -> None:
    """An ALL_DONE leaf would turn a failed run into a success; there is none, so no watcher is needed."""
    assert [name for name, task in dag["tasks"].items() if not task["downstream"]] == ["catch_up"]
    rules = {name: task["trigger"] for name, task in dag["tasks"].items()}
    assert rules.pop("missed") == "none_failed_min_one_success"
    assert set(rules.values()) == {"all_success"}


def test_what_regions_get_is_mapped_over_them(dag: dict[str, Any]) -> None:
    assert {name for name, task in dag["tasks"].items() if task["mapped"]} == {"stage", "promote", "catch_up"}


def test_one_writer_per_table_by_pools_that_exist(dag: dict[str, Any], home: Settings) -> None:
    pools = json.loads(airflow.POOLS.read_text(encoding="ascii"))
    used = {name: dag["tasks"][name]["pool"] for name in [*JOBS, "stage", "catch_up"]}
    assert set(used.values()) == set(pools)
    assert all(pool["slots"] == 1 for pool in pools.values())
    assert used["bundles"] == used["pricing"] == "tandem_bundles"
    listed = subprocess.run(
        ["airflow", "pools", "list", "--output", "json"],
        env=airflow.environment(home),
        capture_output=True,
        text=True,
        check=True,
    )
    made = json.loads(listed.stdout[listed.stdout.index("[") :])
    assert {pool["pool"] for pool in made} >= set(pools)


def test_runs_take_turns_and_missed_days_are_not_run_by_themselves(dag: dict[str, Any]) -> None:
    assert dag["max_active_runs"] == 1
    assert dag["catchup"] is False


def test_a_task_is_tried_again_within_bounds_and_the_gate_is_not(dag: dict[str, Any]) -> None:
    tasks = dag["tasks"]
    assert {tasks[name]["retries"] for name in [*JOBS, "stage", "promote", "catch_up", "pin_inputs"]} == {2}
    assert {tasks[name]["retries"] for name in ("gate", "canary")} == {0}
    assert all(0 < task["timeout"] <= timedelta(hours=3).total_seconds() for task in tasks.values())
    assert all(task["retry_delay"] > 0 for task in tasks.values())


def test_every_parameter_says_what_it_is_for(dag: dict[str, Any]) -> None:
    params = dag["params"]
    assert set(params) == {"as_of", "regions", "publish"}
    assert all(len(param["description"]) > 30 for param in params.values())
    assert {name: param["value"] for name, param in params.items()} == {"as_of": None, "regions": [], "publish": True}


def test_jobs_are_called_by_name_through_this_environments_spark_submit(dag: dict[str, Any]) -> None:
    for name in JOBS:
        assert dag["tasks"][name]["spark_binary"] == str(Path(sys.executable).parent / "spark-submit")
        assert dag["tasks"][name]["application"] == str(ROOT / "spark_jobs" / "submit.py")


def _with_spark_submit(folder: Path, script: str) -> Path:
    """A DAG folder whose jobs call `script` in the place of spark-submit."""
    binary = folder / "spark-submit"
    binary.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    binary.chmod(0o755)
    text = (ROOT / "dags" / "bundles.py").read_text(encoding="utf-8")
    real = 'SPARK_SUBMIT = str(Path(sysconfig.get_path("scripts")) / "spark-submit")'
    assert real in text
    (folder / "dags").mkdir()
    (folder / "dags" / "bundles.py").write_text(text.replace(real, f'SPARK_SUBMIT = "{binary}"'), encoding="utf-8")
    return folder / "dags"


@pytest.fixture(scope="module")
def lineage_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of an HTTP server, and the OpenLineage events that it was sent."""
    events: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"to": self.path})
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", events
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def bad_build(
    home: Settings, tmp_path_factory: pytest.TempPathFactory, lineage_server: tuple[str, list[dict[str, Any]]]
) -> dict[str, airflow.TaskState]:
    """A run by `airflow dags test` of a build that the gate refuses: the jobs do nothing, so there is no bundle.

    Spark is stood in for by a script that ends well: what is tested is Airflow's part. The real jobs run in the demo.
    """
    folder = tmp_path_factory.mktemp("stand-in")
    called = folder / "called"
    dags = _with_spark_submit(folder, f'echo "$@" >> {called}')
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(airflow, "DAGS", dags)
        patch.setenv("OPENLINEAGE_URL", lineage_server[0])
        with pytest.raises(airflow.RunFailed) as failure:
            airflow.test(home, date(2017, 6, 1), said.append)
    assert "gate failed" in str(failure.value)
    assert "does not pass the gate" in str(failure.value)
    assert any(line.split()[:2] == ["gate", "failed"] for line in said)
    calls = called.read_text(encoding="ascii").splitlines()
    assert [call.split("submit.py ")[1].split()[0] for call in calls].count("stage") == 0
    assert all("--as-of 2017-06-01" in call and '--inputs {"customers": 0' in call for call in calls)
    return {task.name: task for task in failure.value.tasks}


def test_a_bad_build_stops_at_the_gate_at_once_and_no_region_sees_it(bad_build: dict[str, airflow.TaskState]) -> None:
    assert {bad_build[name].state for name in ["pin_inputs", *JOBS]} == {"success"}
    assert (bad_build["gate"].state, bad_build["gate"].tries) == ("failed", 1)
    assert {bad_build[name].state for name in RELEASING} == {"upstream_failed"}


@pytest.mark.usefixtures("bad_build")
def test_where_an_address_is_configured_openlineage_is_told_of_every_task_and_table(
    home: Settings, lineage_server: tuple[str, list[dict[str, Any]]]
) -> None:
    _, events = lineage_server
    assert {event["to"] for event in events} == {"/api/v1/lineage"}
    told = {(event["job"]["name"], event["eventType"]): event for event in events}
    for job, flow in lineage.JOBS.items():
        assert ("bundles." + job, "START") in told
        event = told["bundles." + job, "COMPLETE"]
        assert {(each["namespace"], each["name"]) for each in event["outputs"]} == {
            ("file", str(home.home.absolute() / "lake" / table)) for table in flow.writes
        }
        versions = {each["name"].rpartition("/")[2]: each["facets"].get("version") for each in event["inputs"]}
        assert set(versions) == set(flow.reads)
        assert versions["sales_lines"]["datasetVersion"] == str(lake.versions(home)["sales_lines"])
    assert ("bundles.gate", "FAIL") in told


def test_openlineage_is_told_of_tables_in_a_bucket_and_of_regions_without_a_password() -> None:
    on_s3 = Settings(home=Path("x"), lake="s3a://facts/lake")
    assert lineage.dataset(on_s3, "bundles", 7) == ("s3://facts", "lake/bundles", 7)
    north = msgspec.structs.replace(regions.load(None).region[0], redis_url="redis://:secret@10.0.0.1:6400/0")
    assert lineage.of_region(north)[0] == ("redis://10.0.0.1:6400", "tandem:release", None)
    assert lineage.of_region(north)[1] == ("s3://tandem", north.name, None)


def test_a_job_that_calls_its_input_wrong_is_not_tried_again(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(airflow, "DAGS", _with_spark_submit(tmp_path, "echo 'tandem: segments.toml is wrong'; exit 2"))
    with pytest.raises(
        airflow.RunFailed, match=r"segments failed.*; segments\.toml is wrong\n\(all of it in"
    ) as failure:
        airflow.test(home, date(2017, 6, 2), said.append)
    tasks = {task.name: task for task in failure.value.tasks}
    assert (tasks["segments"].state, tasks["segments"].tries) == ("failed", 1)
    assert {task.state for name, task in tasks.items() if name not in {"pin_inputs", "segments"}} == {"upstream_failed"}


def test_a_day_before_the_first_is_no_success(home: Settings) -> None:
    """Airflow runs no task then, and says success."""
    with pytest.raises(airflow.RunFailed, match="no task ran"):
        airflow.test(home, date(2016, 1, 1), print)
