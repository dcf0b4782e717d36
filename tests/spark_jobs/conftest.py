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
def built(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The small shop with all jobs run for AS_OF."""
    from spark_jobs import build

    settings = make(tmp_path_factory.mktemp("built"))
    for name in build.JOBS:
        build.run_job(spark, settings, name, AS_OF)
    return settings


@pytest.fixture
def job_of(spark: Any) -> Callable[[Settings], Job]:
    from spark_jobs import build

    return lambda settings: build.job_of(spark, settings, AS_OF)
