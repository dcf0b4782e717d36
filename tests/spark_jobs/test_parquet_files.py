"""Files of a day that workers write and read, in a folder and on S3."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import boto3
import msgspec
import pyarrow as pa
import pytest

from spark_jobs import order_files, parquet_files
from tandem.errors import InputError
from tandem.settings import Settings
from tests.conftest import RunningStore
from warehouse import lake
from warehouse.tables import BUNDLES, Table

DAY, BEFORE = dt.date(2024, 3, 1), dt.date(2024, 2, 29)
BUNDLE = {
    "segment": "*",
    "bundle_id": "b1",
    "release_id": "r1",
    "currency": "EUR",
    "components": [
        {"sku": "cup", "quantity": 2, "floor_cents": None, "substitutes": [{"sku": "mug", "floor_cents": 5}]}
    ],
    "discount_bps": 0,
    "score": 0.5,
    "expected_profit_cents": None,
    "pricing": None,
    "evidence": {
        "matched": "region",
        "basis": "counts",
        "orders_together": 9,
        "customers_together": 8,
        "lift": 2.0,
    },
    "inputs": "{}",
}


@pytest.fixture
def on_s3(settings: Settings, object_store: RunningStore) -> Settings:
    object_store.server.start()
    client = boto3.client(
        "s3",
        endpoint_url=object_store.store.endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=object_store.access_key,
        aws_secret_access_key=object_store.secret_key,
    )
    client.create_bucket(Bucket="files")
    client.close()
    return msgspec.structs.replace(
        settings,
        lake="s3a://files/lake",
        s3_endpoint=object_store.store.endpoint,
        s3_access_key=object_store.access_key,
        s3_secret_key=object_store.secret_key,
    )


def write(settings: Settings, day: dt.date, region: str, rows: list[dict[str, Any]], table: Table = BUNDLES) -> None:
    where = order_files.folder(settings, table.name)
    values = {"as_of": f"{day}", "region": region}
    held = pa.Table.from_pylist(rows, schema=parquet_files.schema(table))
    parquet_files.replace_day(settings, table.name, day, [parquet_files.write(where, table, values, held)])


def read(settings: Settings, day: dt.date, region: str) -> list[dict[str, Any]]:
    held = parquet_files.held(settings, BUNDLES.name, as_of=f"{day}")
    return held.rows(list(BUNDLE), region=region).to_pylist()  # type: ignore[no-any-return]


def a_day_is_read_as_it_was_written_and_replaced_alone(settings: Settings) -> None:
    lake.create(settings, [BUNDLES])
    changed = BUNDLE | {"discount_bps": 300}
    write(settings, BEFORE, "north", [BUNDLE])
    write(settings, DAY, "north", [BUNDLE])
    write(settings, DAY, "north", [changed, BUNDLE | {"bundle_id": "b2"}])
    assert read(settings, BEFORE, "north") == [BUNDLE]
    assert read(settings, DAY, "north") == [changed, BUNDLE | {"bundle_id": "b2"}]
    assert read(settings, DAY, "south") == []


def test_a_day_is_read_as_it_was_written_and_replaced_alone(settings: Settings) -> None:
    a_day_is_read_as_it_was_written_and_replaced_alone(settings)


@pytest.mark.servers
def test_on_s3_too(on_s3: Settings) -> None:
    a_day_is_read_as_it_was_written_and_replaced_alone(on_s3)


def test_a_table_of_an_older_tandem_gains_the_columns_that_it_lacks(settings: Settings) -> None:
    older = dataclasses.replace(
        BUNDLES, columns=tuple(column for column in BUNDLES.columns if column.name != "pricing")
    )
    lake.create(settings, [older])
    where = order_files.folder(settings, BUNDLES.name)
    rows = pa.Table.from_pylist([BUNDLE], schema=parquet_files.schema(older))
    written = parquet_files.write(where, older, {"as_of": f"{BEFORE}", "region": "north"}, rows)
    parquet_files.replace_day(settings, BUNDLES.name, BEFORE, [written])
    write(settings, DAY, "north", [BUNDLE])
    assert read(settings, BEFORE, "north") == read(settings, DAY, "north") == [BUNDLE]


def test_what_breaks_a_constraint_or_lacks_a_value_is_not_written(settings: Settings) -> None:
    lake.create(settings, [BUNDLES])
    with pytest.raises(InputError, match="discount_in_range"):
        write(settings, DAY, "north", [BUNDLE | {"discount_bps": 10_000}])
    with pytest.raises(InputError, match="column score must not be null"):
        write(settings, DAY, "north", [BUNDLE | {"score": None}])
