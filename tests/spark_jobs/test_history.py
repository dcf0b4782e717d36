"""Orders of a real PostgreSQL come into the lake as the stream brings them, and each once whoever was first."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from msgspec.structs import replace

from deploy import services
from deploy.postgres import postgres_server
from orders.migrate import migrate
from spark_jobs import history, into_lake
from spark_jobs.history import address
from streams.messages import Message, OrderPlaced, OrderReturned, ReturnedLine, SoldLine
from tandem.errors import ConfigError, Unavailable
from tandem.settings import Settings
from tests.spark_jobs.small_shop import make
from tests.spark_jobs.told_messages import NOON, SCHEMA, record
from warehouse import lake


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Settings]:
    """The small shop, with a real PostgreSQL for its orders."""
    held = replace(make(tmp_path), postgres_port=services.free_ports(1)[0])
    server = postgres_server(held, more={"fsync": "off"})
    server.start()
    migrate(held.orders_dsn)
    yield held
    server.stop()


def _orders() -> list[OrderPlaced]:
    return [
        OrderPlaced(
            order_id=str(uuid.UUID(int=number)),
            region="north",
            customer_id=f"new{number}",
            consents=["ads"],
            currency="EUR",
            placed_at=NOON + dt.timedelta(days=number, microseconds=number),
            lines=[
                SoldLine(sku=sku, quantity=number + 1, offer_total=701, bundle_id="b", quote_id="q", release="r")
                for sku in ("sauce", "pasta")
            ],
        )
        for number in range(5)
    ]


def _return(order: OrderPlaced) -> OrderReturned:
    at = order.placed_at + dt.timedelta(days=2)
    lines = [ReturnedLine(sku=line.sku, quantity=1, refunded=350) for line in reversed(order.lines)]
    name = str(uuid.UUID(int=99))
    return OrderReturned(return_id=name, order_id=order.order_id, region="north", at=at, lines=lines)


def _write(dsn: str, orders: list[OrderPlaced], back: OrderReturned) -> None:
    with psycopg.connect(dsn) as connection:
        for sku in ("pasta", "sauce"):
            connection.execute("INSERT INTO stock (region, sku, on_hand, sequence) VALUES ('north', %s, 9, 1)", [sku])
        for order in orders:
            facts = [order.order_id, order.customer_id, order.consents, order.placed_at]
            connection.execute(
                "INSERT INTO orders (order_id, region, currency, total, customer_id, consents, placed_at)"
                " VALUES (%s, 'north', 'EUR', 1402, %s, %s, %s)",
                facts,
            )
            for number, line in enumerate(order.lines, 1):
                connection.execute(
                    "INSERT INTO order_lines (order_id, line, region, sku, quantity, offer_total, bundle_id, quote_id,"
                    " release) VALUES (%s, %s, 'north', %s, %s, 701, 'b', 'q', 'r')",
                    [order.order_id, number, line.sku, line.quantity],
                )
        facts = [back.return_id, back.order_id, back.at]
        connection.execute("INSERT INTO returns (return_id, order_id, at, refunded) VALUES (%s, %s, %s, 700)", facts)
        connection.execute(
            "INSERT INTO return_lines (return_id, order_id, line, quantity, refunded, restocked)"
            " SELECT %s, order_id, line, 1, 350, true FROM order_lines WHERE order_id = %s",
            [back.return_id, back.order_id],
        )


def _rows(settings: Settings, table: str) -> list[dict[str, Any]]:
    rows = lake.open_table(settings, table).to_pyarrow_table().to_pylist()
    return sorted((row for row in rows if row["source"] == "orders"), key=str)


@pytest.mark.spark
@pytest.mark.servers
def test_history_is_equal_to_what_the_stream_brings_and_comes_once(
    spark: Any, shop: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SLICE", 2)
    told = _orders()
    messages: list[Message] = [*told, _return(told[4])]
    _write(shop.orders_dsn, told, _return(told[4]))
    history.bring(spark, shop, print)

    (tmp_path / "streamed").mkdir()
    streamed = make(tmp_path / "streamed")
    records = [record(each, offset) for offset, each in enumerate(messages)]
    batch = spark.createDataFrame(pa.Table.from_pylist(records, schema=SCHEMA))
    assert into_lake.take(streamed, batch).new == 12
    for table in ("sales_lines", "customers"):
        assert _rows(shop, table) == _rows(streamed, table)

    said: list[str] = []
    history.bring(spark, shop, said.append)
    assert said[:2] == ["orders: 5 messages, 0 new rows, 0 rejected", "returns: 1 messages, 0 new rows, 0 rejected"]
    assert into_lake.take(shop, batch).new == 0


@pytest.mark.spark
def test_a_postgres_that_does_not_answer_is_named(spark: Any, tmp_path: Path) -> None:
    (port,) = services.free_ports(1)
    held = replace(make(tmp_path), orders=f"postgresql://u:p@127.0.0.1:{port}/shop")
    with pytest.raises(Unavailable, match=f"PostgreSQL at jdbc:postgresql://127.0.0.1:{port}/shop can't be read"):
        history.bring(spark, held, print)


def test_an_address_is_read_as_a_url_and_as_words() -> None:
    url, properties = address("postgresql://ann:p%40ss@db.example:6432/shop?sslmode=require")
    assert url == "jdbc:postgresql://db.example:6432/shop"
    assert (properties["user"], properties["password"], properties["sslmode"]) == ("ann", "p@ss", "require")
    url, properties = address("host=db.example port=6432 dbname=shop user=ann password='p q'")
    assert (url, properties["password"]) == ("jdbc:postgresql://db.example:6432/shop", "p q")
    with pytest.raises(ConfigError, match="mysql"):
        address("mysql://db/shop")
    with pytest.raises(ConfigError, match="'nonsense'"):
        address("nonsense")
