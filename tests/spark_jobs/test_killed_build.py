"""A build that is killed, whatever it was doing, and run again ends in the tables of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF, make
from warehouse import lake

pytestmark = [pytest.mark.spark, pytest.mark.e2e]

RESULTS = ("segment_members", "affinity", "neighbours", "substitutes", "bundles", "bundle_sets", "evaluations")
TANDEM = str(Path(sysconfig.get_path("scripts")) / "tandem")


def test_a_build_killed_twice_and_run_again_ends_in_the_same_tables(tmp_path: Path, request: pytest.FixtureRequest):
    settings = make(tmp_path)
    _killed(settings, after="segments", seconds=0.3)
    _killed(settings, after="affinity", seconds=0.7)
    assert _rows(settings, "segment_members")
    assert not _rows(settings, "evaluations")

    with _build(settings) as build:
        told, _ = build.communicate()
    assert build.returncode == 0, told
    built = request.getfixturevalue("built")  # not before: another process may still be at work on it
    for table in RESULTS:
        assert _rows(settings, table) == _rows(built, table), table


def _killed(settings: Settings, *, after: str, seconds: float) -> None:
    """A build that dies, with every process it started, so long after it has reported a job."""
    with _build(settings) as build:
        told = []
        for line in build.stdout or ():
            told.append(line)
            if line.startswith(after):
                break
        time.sleep(seconds)
        assert build.poll() is None, "".join(told)
        os.killpg(build.pid, signal.SIGKILL)
    assert build.returncode == -signal.SIGKILL


def _build(settings: Settings) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [TANDEM, "build", "--as-of", f"{AS_OF}", "--no-publish"],
        env=os.environ | {"TANDEM_HOME": str(settings.home), "TANDEM_CONFIG": str(settings.config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _rows(settings: Settings, table: str) -> list[str]:
    """All rows of a table, each as text, in an order that depends on nothing but them."""
    rows: pa.Table = lake.open_table(settings, table).to_pyarrow_table()
    return sorted(map(repr, rows.to_pylist()))
