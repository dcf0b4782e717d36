"""A small shop whose truth is known, in a lake of its own."""

from __future__ import annotations

import datetime as dt
import functools
import random
import shutil
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES

AS_OF = dt.date(2024, 3, 1)
REGIONS = """
[[region]]
name = "{name}"
currency = "EUR"
time_zone = "Europe/Berlin"
redis_url = "{redis}"
k = {k}
consent_purposes = {purposes}
[region.object_store]
endpoint = "{endpoint}"
bucket = "tandem"
public_url = "{endpoint}/tandem"
"""
SEGMENTS = """
[[segment]]
name = "parents"
publish = "always"
where = "kids IN ('1', '2')"

[[segment]]
name = "big-spenders"
where = "spend >= 1000 AND recency_days < 60"
"""
RULES = """
[learning]
min_orders_together = 8
[bundling]
exclude_categories = ["Bags"]
[pricing]
max_discount_bps = 1000
"""
PRODUCTS = {
    # sku: (category, price, cost, minimum advertised price)
    "pasta": ("Food > Pasta", 150, 100, None),
    "penne": ("Food > Pasta", 160, 110, None),
    "sauce": ("Food > Sauce", 250, 200, None),
    "pesto": ("Food > Sauce", 270, 265, None),
    "cheese": ("Food > Cheese", 400, 250, 390),
    "wine": ("Drinks > Wine", 900, None, None),
    "soap": ("Home > Soap", 200, 100, None),
    "bag": ("Bags", 10, 1, None),
    "nappy": ("Home > Baby", 1200, 800, None),
    "wipes": ("Home > Wipes", 300, 200, None),
    "old": ("Food > Old", 100, 50, None),
}


def _orders(seed: int = 5) -> Iterator[tuple[str, str, str | None, dt.datetime, set[str]]]:
    """Orders in which pasta, sauce and cheese go together, and for parents nappies and wipes."""
    chance = random.Random(seed)
    start = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
    for number in range(900):
        region = ("north", "south")[number % 3 == 0]
        customer = f"c{number % 45}"
        held = {sku for sku in ("soap", "wine", "penne", "pesto", "old") if chance.random() < 0.12}
        if chance.random() < 0.35:
            held |= {sku for sku in ("pasta", "sauce", "cheese") if chance.random() < 0.8}
        if number % 45 < 15 and chance.random() < 0.6:
            held |= {"nappy", "wipes"}
        if chance.random() < 0.5:
            held.add("bag")
        yield (
            region,
            f"o{number}",
            None if number % 20 == 7 else customer,
            start + dt.timedelta(hours=1.5 * number),
            held,
        )


def _rows(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=lake.arrow_schema(TABLES[table]))


def sales(lines: list[dict[str, Any]]) -> pa.Table:
    """Rows of sales_lines from what `line` makes."""
    return _rows("sales_lines", lines)


def line(region: str, order: str, customer: str | None, at: dt.datetime, number: int, sku: str) -> dict[str, Any]:
    """A line of an order, for `sales`."""
    price = PRODUCTS[sku][1]
    return {
        "region": region,
        "month": f"{at:%Y-%m}",
        "order_id": order,
        "line": number,
        "ordered_at": at,
        "sku": sku,
        "quantity": Decimal(1),
        "unit_price_cents": price,
        "net_cents": price,
        "list_price_cents": price,
        "currency": "EUR",
        "customer_id": customer,
        "source": "test",
    }


def fill(settings: Settings) -> None:
    """The small shop into the lake of `settings`."""
    lake.create(settings)
    lines = [
        line(region, order, customer, at, number, sku)
        for region, order, customer, at, held in _orders()
        for number, sku in enumerate(sorted(held), 1)
    ]
    later = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    lines += [
        line("north", f"later{n}", f"c{n}", later, m, sku) for n in range(9) for m, sku in ((1, "wine"), (2, "soap"))
    ]
    returned = line("north", "returned", "c1", later - dt.timedelta(days=2), 1, "soap")
    lines.append(returned | {"quantity": Decimal(-1), "net_cents": -200})
    lake.append(settings, TABLES["sales_lines"], _rows("sales_lines", lines))
    products = [
        {
            "sku": sku,
            "title": sku.title(),
            "category": category,
            "unit_cost_cents": cost,
            "minimum_advertised_price_cents": minimum,
            "currency": "EUR",
            "active": sku != "old",
            "source": "test",
        }
        for sku, (category, _, cost, minimum) in PRODUCTS.items()
    ]
    lake.append(settings, TABLES["products"], _rows("products", products))
    at = dt.datetime(2024, 2, 29, 22, tzinfo=dt.UTC)
    everywhere = [(region, sku) for region in ("north", "south") for sku in PRODUCTS]
    prices = [
        {
            "region": region,
            "sku": sku,
            "list_price_cents": PRODUCTS[sku][1],
            "currency": "EUR",
            "prices_as_of": at,
            "source": "t",
        }
        for region, sku in everywhere
    ]
    stock = [
        {"region": region, "sku": sku, "on_hand": 20, "stock_as_of": at, "source": "t"} for region, sku in everywhere
    ]
    lake.append(settings, TABLES["prices"], _rows("prices", prices))
    lake.append(settings, TABLES["stock"], _rows("stock", stock))
    customers = [
        {
            "customer_id": f"c{n}",
            "consents": ["personalisation"] if n % 2 else [],
            "attributes": [{"name": "kids", "value": "1" if n < 15 else "0"}],
            "source": "test",
        }
        for n in range(45)
    ]
    lake.append(settings, TABLES["customers"], _rows("customers", customers))


@functools.cache
def _filled() -> tempfile.TemporaryDirectory[str]:
    """A folder with the small shop's lake, made once in a process: to copy it takes a hundredth of the time."""
    folder = tempfile.TemporaryDirectory(prefix="small-shop-")
    fill(Settings(home=Path(folder.name)))
    return folder


def make(
    folder: Path,
    redis: str = "redis://127.0.0.1:1/0",
    endpoint: str = "http://127.0.0.1:1",
    k: int = 3,
    purposes: str = "[]",
) -> Settings:
    """Settings below `folder` of a lake that holds the small shop; redis, endpoint and k for both regions."""
    config = folder / "config"
    config.mkdir()
    asked = {"redis": redis, "endpoint": endpoint, "k": k}
    north = REGIONS.format(name="north", purposes="[]", **asked)
    south = REGIONS.format(name="south", purposes=purposes, **asked)
    (config / "regions.toml").write_text(north + south, encoding="utf-8")
    (config / "segments.toml").write_text(SEGMENTS, encoding="utf-8")
    (config / "rules.toml").write_text(RULES, encoding="utf-8")
    shutil.copytree(Path(_filled().name) / "lake", folder / "home" / "lake")
    return Settings(home=folder / "home", config=config)
