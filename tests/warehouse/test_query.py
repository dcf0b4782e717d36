from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from tandem.errors import InputError, TandemError
from tandem.settings import Settings
from warehouse import lake, query
from warehouse.tables import AFFINITY, STOCK

WRONG = "only one statement that reads"


def stock(settings: Settings, rows: list[tuple[str, str, int]]) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    held = [
        {"region": region, "sku": sku, "on_hand": on_hand, "stock_as_of": at, "source": "test"}
        for region, sku, on_hand in rows
    ]
    lake.create(settings, [STOCK])
    lake.append(settings, STOCK, pa.Table.from_pylist(held, schema=lake.arrow_schema(STOCK)))


def test_rows_are_drawn_with_numbers_to_the_right(settings: Settings) -> None:
    stock(settings, [("a", "tea", 5), ("a", "jam", 12345)])
    assert query.as_text(settings, "select sku, on_hand from stock order by sku") == (
        "sku  on_hand\n───  ───────\njam    12345\ntea        5\n2 rows"
    )


def test_only_the_newest_snapshot_is_read(settings: Settings) -> None:
    stock(settings, [("a", "tea", 5), ("b", "tea", 6)])
    held = lake.open_table(settings, "stock").to_pyarrow_table(filters=[("region", "=", "a")])
    lake.replace(settings, STOCK, held.set_column(2, "on_hand", pa.array([7])), "region = 'a'")
    assert json.loads(query.as_json(settings, "select region, on_hand from stock order by region")) == [
        {"region": "a", "on_hand": 7},
        {"region": "b", "on_hand": 6},
    ]


def test_a_star_in_a_partition_is_read_back(settings: Settings) -> None:
    lake.create(settings, [AFFINITY])
    schema = lake.arrow_schema(AFFINITY)
    row = {
        name: {"as_of": date(2024, 1, 1), "region": "*", "segment": "*"}.get(name, "x" if kind == pa.string() else 1)
        for name, kind in zip(schema.names, schema.types, strict=True)
    }
    lake.append(settings, AFFINITY, pa.Table.from_pylist([row, {**row, "region": "a b%"}], schema=schema))
    assert json.loads(query.as_json(settings, "select as_of, region from affinity order by region")) == [
        {"as_of": "2024-01-01", "region": "*"},
        {"as_of": "2024-01-01", "region": "a b%"},
    ]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("select * from shelves", "Table with name shelves does not exist; tables are sales_lines, products"),
        ("select weight from stock", 'column "weight" not found.*Candidate bindings'),
        ("selct 1", 'syntax error at or near "selct"'),
        ("drop table stock", WRONG),
        ("delete from stock", WRONG),
        ("copy stock to 'x.csv'", WRONG),
        ("select 1; select 2", WRONG),
        ("attach 'x.db'", WRONG),
        ("set memory_limit = '1GB'", WRONG),
        ("", WRONG),
        ("select * from read_text('/etc/hostname')", "disabled by configuration"),
    ],
)
def test_what_cannot_be_asked_is_one_line(settings: Settings, statement: str, message: str) -> None:
    stock(settings, [("a", "tea", 5)])
    with pytest.raises(TandemError, match=message) as error:
        query.as_text(settings, statement)
    assert "\n" not in str(error.value)


def test_a_table_that_was_never_made_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(InputError, match=r"table prices does not exist in .*; import data first"):
        query.as_text(settings, "select * from prices")


def test_the_overview_tells_version_and_rows_without_reading_them(settings: Settings) -> None:
    stock(settings, [("a", "tea", 5), ("a", "jam", 6)])
    lines = {line.split()[0]: line.split() for line in query.overview(settings).splitlines()}
    assert lines["stock"][2] == "2"
    assert lines["bundles"][1:3] == ["·", "·"]
