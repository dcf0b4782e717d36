"""The small shop of small_shop.py, empty of results or built."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spark_jobs.facts import Job
from tandem.settings import Settings
from tests.conftest import WORKER
from tests.spark_jobs.small_shop import AS_OF, make

Opened = dict[str, set[str]]
"""The tables that each job opened."""


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., Settings]:
    """`make` below this test's folder."""
    return partial(make, tmp_path)


@pytest.fixture(scope="session")
def building(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Opened]:
    """The small shop with all jobs run for AS_OF, and the tables that each job opened.

    Where several processes share the run, the first that asks builds for all of them.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if WORKER in os.environ else folder) / "built"
    folder.mkdir(exist_ok=True)
    told = folder / "opened.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            told.write_bytes(msgspec.json.encode(_build(request.getfixturevalue("spark"), make(folder))))
    return Settings(home=folder / "home", config=folder / "config"), msgspec.json.decode(told.read_bytes(), type=Opened)


def _build(spark: Any, settings: Settings) -> Opened:
    """Run all jobs; gives the tables that each opened."""
    from spark_jobs import build, delta
    from warehouse import lake

    opened: Opened = {name: set() for name in build.JOBS}
    pinned = lake.versions(settings)
    for name in build.JOBS:
        with pytest.MonkeyPatch.context() as patch:
            for module, function in ((lake, "open_table"), (delta, "uri")):
                patch.setattr(module, function, _noting(getattr(module, function), opened[name]))
            build.run_job(spark, settings, name, AS_OF, pinned)
    return opened


def _noting(real: Callable[..., Any], noted: set[str]) -> Callable[..., Any]:
    def call(settings: Settings, table: str, *further: Any) -> Any:
        noted.add(table)
        return real(settings, table, *further)

    return call


@pytest.fixture(scope="session")
def built(building: tuple[Settings, Opened]) -> Settings:
    """The small shop with all jobs run for AS_OF."""
    return building[0]


@pytest.fixture
def job_of(spark: Any) -> Callable[[Settings], Job]:
    from spark_jobs import build

    return lambda settings: build.job_of(spark, settings, AS_OF)
