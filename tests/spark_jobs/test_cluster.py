"""A job on a cluster: executors in processes of their own, which get jars, Python and kernels from settings alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyspark
import pytest

from spark_jobs import session, submit
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF
from warehouse import lake

pytestmark = pytest.mark.spark

MASTER = "local-cluster[2,1,1024]"
"""Two workers and two executors with a core each, all of them JVMs of their own."""
SOON = "-XX:TieredStopAtLevel=1"


@pytest.fixture
def spark_home(tmp_path: Path) -> Path:
    """PySpark's own Spark under another name: workers keep the folders of their executors in it."""
    home = tmp_path / "spark-home"
    home.mkdir()
    for entry in Path(pyspark.__path__[0]).iterdir():
        if entry.name != "work":
            (home / entry.name).symlink_to(entry)
    return home


def test_a_job_on_a_cluster_gives_the_rows_that_it_gives_on_one_machine(
    built: Settings, spark_home: Path, tmp_path: Path
):
    settings = _without_affinity(built, tmp_path / "home")
    environment = _environment(settings, spark_home, tmp_path)
    defaults = tmp_path / "conf" / "spark-defaults.conf"
    _run([sys.executable, "-m", "spark_jobs.session", "--defaults", str(defaults)], environment)
    job = [str(Path(submit.__file__)), "affinity", "--as-of", f"{AS_OF}"]
    _run([session.spark_submit(), "--master", MASTER, *job], environment)

    assert _rows(settings) == _rows(built)
    tasks = _tasks_by_executor(tmp_path / "events")
    assert tasks.keys() == {"0", "1"}
    # Kernels were compiled into the executors' own folders: those of the package may belong to somebody else.
    compiled = {path.relative_to(spark_home / "work").parts[1] for path in (spark_home / "work").rglob("*.nbi")}
    assert compiled
    assert compiled <= {"0", "1"}


def _without_affinity(built: Settings, home: Path) -> Settings:
    """A copy of the shop up to the job that comes next."""
    shutil.copytree(built.home, home)
    settings = Settings(home=home, config=built.config)
    lake.open_table(settings, "affinity").delete()
    assert not _rows(settings)
    return settings


def _environment(settings: Settings, spark_home: Path, folder: Path) -> dict[str, str]:
    for name in ("conf", "events"):
        (folder / name).mkdir()
    further = {
        "spark.executor.memory": "900m",
        "spark.executor.extraJavaOptions": SOON,
        "spark.driver.extraJavaOptions": SOON,
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": (folder / "events").as_uri(),
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
    }
    return os.environ | {
        "SPARK_HOME": str(spark_home),
        "SPARK_CONF_DIR": str(folder / "conf"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "TANDEM_HOME": str(settings.home),
        "TANDEM_CONFIG": str(settings.config),
        "TANDEM_SPARK_MASTER": MASTER,
        "TANDEM_SPARK_DRIVER_MEMORY": "900m",
        "TANDEM_SPARK_CONF": ";".join(f"{key}={value}" for key, value in further.items()),
    }


def _run(command: list[str], environment: dict[str, str]) -> None:
    """From a folder that holds nothing, so that only what is installed is found."""
    folder = Path(environment["TANDEM_HOME"])
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _rows(settings: Settings) -> list[dict[str, object]]:
    rows: pa.Table = lake.open_table(settings, "affinity").to_pyarrow_table()
    return rows.sort_by([(name, "ascending") for name in ("region", "segment", "anchor", "rank")]).to_pylist()


def _tasks_by_executor(events: Path) -> Counter[str]:
    """How many tasks each executor ended well, by Spark's own log."""
    (log,) = events.iterdir()
    found = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    ended = [event for event in found if event["Event"] == "SparkListenerTaskEnd"]
    return Counter(event["Task Info"]["Executor ID"] for event in ended if not event["Task Info"]["Failed"])
