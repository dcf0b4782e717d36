"""The commands: schema, first stock from the lake, stock told anew."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from click.testing import CliRunner

from tandem.cli import main
from tandem.settings import Settings
from tests.orders.conftest import Postgres, rows
from tests.orders.test_faults import CONFIG, ONE_SERVER
from warehouse import lake
from warehouse.tables import STOCK

pytestmark = pytest.mark.servers


@ONE_SERVER
def test_the_lakes_stock_is_where_a_product_begins_and_later_imports_change_nothing(
    postgres: Postgres, settings: Settings
) -> None:
    dsn = postgres.made()
    (settings.home / "config").mkdir(parents=True, exist_ok=True)
    (settings.home / "config" / "regions.toml").write_text(CONFIG, encoding="ascii")

    def tandem(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments, env={"TANDEM_HOME": str(settings.home), "TANDEM_ORDERS": dsn})
        assert done.exit_code == 0, done.output
        return done.output

    assert tandem("orders", "migrate") == "the database is at step 0001 (was: nothing)\n"
    assert tandem("orders", "migrate") == "the database is at step 0001 already\n"
    _import(settings, tea=5, cup=0)
    assert tandem("orders", "seed") == "2 of 2 products were not known yet\n"
    _import(settings, tea=7, pot=3)
    assert tandem("orders", "seed") == "1 of 2 products were not known yet\n"
    assert rows(dsn, "SELECT sku, on_hand FROM stock ORDER BY sku") == [("cup", 0), ("pot", 3), ("tea", 5)]
    assert tandem("orders", "tell", "--region", "east") == "3 products are told anew\n"
    told = [json.loads(value) for (value,) in rows(dsn, "SELECT value FROM outbox ORDER BY id")]
    assert [(each["sku"], each["stock"]) for each in told] == [("cup", 0), ("pot", 3), ("tea", 5)]


def _import(settings: Settings, **units: int) -> None:
    rows = [
        {"region": "east", "sku": sku, "on_hand": held, "stock_as_of": datetime.now(UTC), "source": "test"}
        for sku, held in units.items()
    ]
    lake.replace(settings, STOCK, pa.Table.from_pylist(rows, lake.arrow_schema(STOCK)))
