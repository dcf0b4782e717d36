"""A lake on S3 is filled, computed on and asked as one in a folder is, and holds the same rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest

from spark_jobs import session
from tandem.settings import Settings
from tests.conftest import RunningStore
from tests.spark_jobs.small_shop import AS_OF, fill
from warehouse import lake, query

pytestmark = [pytest.mark.spark, pytest.mark.servers]

BUCKET = "inside"
"""Not the public one."""
JOBS = """
from datetime import date
from spark_jobs import build, session
from tandem import settings
found = settings.from_environment()
spark = session.create(found)
for job in ("segments", "affinity"):
    build.run_job(spark, found, job, date.fromisoformat("{as_of}"))
spark.stop()
"""


@pytest.fixture
def on_s3(built: Settings, object_store: RunningStore, tmp_path: Path) -> Settings:
    """The small shop in a lake on a real S3 server. Its jars have a folder of their own."""
    object_store.server.start()
    settings = msgspec.structs.replace(
        built,
        home=tmp_path,
        lake=f"s3a://{BUCKET}/lake/",
        s3_endpoint=object_store.store.endpoint,
        s3_access_key=object_store.access_key,
        s3_secret_key=object_store.secret_key,
        spark_jars=built.spark_jars.with_name("spark-s3a"),
    )
    _make_bucket(settings)
    fill(settings)
    return settings


def test_jobs_on_a_lake_on_s3_give_the_rows_of_a_lake_in_a_folder(built: Settings, on_s3: Settings):
    session.fetch(on_s3)
    _run(on_s3, JOBS.format(as_of=AS_OF))
    for table, order in (
        ("segment_members", "region, customer_id"),
        ("affinity", "region, segment, anchor, rank"),
    ):
        asked = f"SELECT * FROM {table} ORDER BY {order}"
        found = _rows(on_s3, asked)
        assert found
        assert found == _rows(built, asked)
    assert lake.versions(on_s3) == lake.versions(built)


def _make_bucket(settings: Settings) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret,
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()


def _run(settings: Settings, script: str) -> None:
    given = ("home", "config", "lake", "s3_endpoint", "s3_access_key", "s3_secret_key", "spark_jars")
    variables = {f"TANDEM_{name.upper()}": str(getattr(settings, name)) for name in given}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _rows(settings: Settings, statement: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(query.as_json(settings, statement))
    return found
