"""A synthetic shop of any size in a lake of its own: orders, customers in segments, three regions."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES

AS_OF = dt.date(2024, 4, 1)
DAYS = 90
ITEMS = 50_000
REGIONS = ("central", "north", "south")
SEGMENTS = tuple(f"segment-{number}" for number in range(6))
SEED = 7
REGION = """
[[region]]
name = "{name}"
currency = "EUR"
time_zone = "Europe/Berlin"
redis_url = "redis://127.0.0.1:1/0"
k = {k}
[region.object_store]
endpoint = "http://127.0.0.1:1"
bucket = "none"
public_url = "http://127.0.0.1:1/none"
"""
RULES = """
[learning]
window_days = {days}
popularity_damping = {damping}
half_life_days = 30
"""


def make(home: Path, baskets: int, *, days: int = DAYS) -> Settings:
    """A lake with `baskets` orders of the `days` before AS_OF and of the day AS_OF itself (as many as on any other).

    Sizes lognormal(2.0, 0.75) clipped to 1..100; 50,000 products of popularity 1 / (rank + 30); a customer for ten
    orders, in one of three regions and six segments, one in twenty of them in two regions.
    """
    settings = Settings(home=home, config=home / "config")
    if (home / "complete").exists():
        return settings
    lake.create(settings)
    chance = np.random.default_rng(SEED)
    number = baskets + baskets // days
    order, item = _lines(chance, number)
    people = max(number // 10, 1)
    customer = chance.integers(0, people, number)
    home_region, segment = chance.integers(0, len(REGIONS), people), chance.integers(0, len(SEGMENTS), people)
    away = (np.arange(people)[customer] % 20 == 0) & (chance.random(number) < 0.3)
    region = np.where(away, (home_region[customer] + 1) % len(REGIONS), home_region[customer])
    start = np.datetime64(AS_OF - dt.timedelta(days=days), "us")
    spread = chance.integers(0, (days + 1) * 86_400, number)
    at = start + (np.sort(spread) * 1_000_000).astype("timedelta64[us]")
    for place, name in enumerate(REGIONS):
        own = region[order] == place
        lake.append(settings, TABLES["sales_lines"], _sales(name, order[own], item[own], at[order[own]], customer))
        theirs = np.unique(customer[region == place])
        lake.append(settings, TABLES["segment_members"], _members(name, theirs, segment[theirs]))
    (home / "complete").touch()
    return settings


def configure(settings: Settings, *, k: int, damping: float, days: int = DAYS) -> None:
    """Write regions.toml and rules.toml: customers a pair needs, and how popular companions are damped."""
    folder = settings.config_folder
    folder.mkdir(exist_ok=True)
    (folder / "regions.toml").write_text("".join(REGION.format(name=name, k=k) for name in REGIONS), encoding="utf-8")
    (folder / "rules.toml").write_text(RULES.format(days=days, damping=damping), encoding="utf-8")


def _lines(chance: np.random.Generator, baskets: int) -> tuple[np.ndarray, np.ndarray]:
    """Order and item of every line, the items of an order distinct."""
    sizes = np.clip(chance.lognormal(2.0, 0.75, baskets).astype(int), 1, 100)
    popularity = 1 / (np.arange(ITEMS) + 30)
    item = np.searchsorted(np.cumsum(popularity / popularity.sum()), chance.random(int(sizes.sum())))
    order = np.repeat(np.arange(baskets, dtype=np.int64), sizes)
    line = np.unique(order * ITEMS + np.minimum(item, ITEMS - 1))
    name = chance.permutation(ITEMS)  # a SKU's number says nothing about its popularity
    return line // ITEMS, name[line % ITEMS]


def _texts(numbers: np.ndarray) -> pa.Array:
    return pc.cast(pa.array(numbers), pa.string())


def _sales(region: str, order: np.ndarray, item: np.ndarray, at: np.ndarray, customer: np.ndarray) -> pa.Table:
    lines = len(order)
    first = np.flatnonzero(np.diff(order, prepend=-1))
    line = np.arange(lines) - np.repeat(first, np.diff(np.append(first, lines))) + 1
    price = 100 + item % 900
    fixed = {"region": region, "currency": "EUR", "source": "synthetic"}
    columns = {
        "month": pc.strftime(pa.array(at, pa.timestamp("us")), "%Y-%m"),
        "order_id": _texts(order),
        "line": line,
        "ordered_at": pa.array(at, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
        "sku": _texts(item),
        "quantity": pa.array(np.ones(lines, np.int64))
        .cast(pa.decimal128(19, 0))
        .cast(pa.decimal128(12, 3), safe=False),
        "unit_price_cents": price,
        "net_cents": price,
        "list_price_cents": price,
        "customer_id": _texts(customer[order]),
    }
    schema = lake.arrow_schema(TABLES["sales_lines"])
    arrays = [
        pa.array([fixed[field.name]]).take(pa.array(np.zeros(lines, np.int64)))
        if field.name in fixed
        else _array(columns[field.name]).cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: object) -> pa.Array:
    return pa.array(values) if isinstance(values, np.ndarray) else values


def _members(region: str, customer: np.ndarray, segment: np.ndarray) -> pa.Table:
    schema = lake.arrow_schema(TABLES["segment_members"])
    days = [AS_OF, AS_OF + dt.timedelta(days=1)]
    tables = []
    for day in days:
        columns = {
            "as_of": pa.array([day] * len(customer), pa.date32()),
            "region": pa.array([region] * len(customer)),
            "segment": pa.array(SEGMENTS).take(pa.array(segment)),
            "customer_id": _texts(customer),
            "recency_days": pa.array(np.ones(len(customer), np.int32)),
            "frequency": pa.array(np.ones(len(customer), np.int64)),
            "spend_cents": pa.array(np.ones(len(customer), np.int64)),
        }
        tables.append(pa.Table.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema))
    return pa.concat_tables(tables)
