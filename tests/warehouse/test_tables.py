from __future__ import annotations

from pathlib import Path

import pytest

from tandem.settings import Settings
from warehouse import lake, tables
from warehouse.views import connect, sql_type

ROOT = Path(__file__).parents[2]


def test_the_page_of_tables_is_current() -> None:
    """Mend with: tandem tables --markdown > docs/tables.md."""
    assert (ROOT / "docs/tables.md").read_text(encoding="utf-8") == tables.markdown()


@pytest.mark.parametrize("table", tables.TABLES.values(), ids=lambda table: table.name)
def test_every_column_says_what_it_means(table: tables.Table) -> None:
    assert all(column.comment for column in table.columns)
    assert set(table.partitions) <= set(table.names)


def test_tables_are_made_once_with_their_constraints(settings: Settings) -> None:
    lake.create(settings)
    before = lake.versions(settings, tables.TABLES)
    lake.create(settings)
    assert lake.versions(settings, tables.TABLES) == before
    held = lake.open_table(settings, "stock").metadata().configuration
    assert held["delta.constraints.on_hand_not_negative"] == "on_hand >= 0"


def test_the_arrow_schema_is_what_duckdb_reads_back(settings: Settings) -> None:
    lake.create(settings)
    for table in tables.TABLES.values():
        lake.append(settings, table, lake.arrow_schema(table).empty_table())
        with connect(settings, [table.name]) as connection:
            found = dict(connection.sql(f'SELECT column_name, column_type FROM (DESCRIBE "{table.name}")').fetchall())
        assert found.keys() == set(table.names)
        simple = {column.name: sql_type(column.type) for column in table.columns if isinstance(column.type, str)}
        assert {name: found[name] for name in simple} == simple
