"""The small shop of small_shop.py, empty of results or built."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from spark_jobs.facts import Job
from tandem.settings import Settings
from tests.spark_jobs.small_shop import AS_OF, make


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., Settings]:
    """`make` below this test's folder."""
    return partial(make, tmp_path)


@pytest.fixture(scope="session")
def building(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict[str, set[str]]]:
    """The small shop with all jobs run for AS_OF, and the tables that each job opened."""
    from spark_jobs import build, delta
    from warehouse import lake

    settings = make(tmp_path_factory.mktemp("built"))
    opened: dict[str, set[str]] = {name: set() for name in build.JOBS}
    pinned = lake.versions(settings)
    for name in build.JOBS:
        with pytest.MonkeyPatch.context() as patch:
            for module, function in ((lake, "open_table"), (delta, "uri")):
                patch.setattr(module, function, _noting(getattr(module, function), opened[name]))
            build.run_job(spark, settings, name, AS_OF, pinned)
    return settings, opened


def _noting(real: Callable[..., Any], noted: set[str]) -> Callable[..., Any]:
    def call(settings: Settings, table: str, *further: Any) -> Any:
        noted.add(table)
        return real(settings, table, *further)

    return call


@pytest.fixture(scope="session")
def built(building: tuple[Settings, dict[str, set[str]]]) -> Settings:
    """The small shop with all jobs run for AS_OF."""
    return building[0]


@pytest.fixture
def job_of(spark: Any) -> Callable[[Settings], Job]:
    from spark_jobs import build

    return lambda settings: build.job_of(spark, settings, AS_OF)
