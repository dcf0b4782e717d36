"""What the last minutes add to a release: a streaming job from the lake's events to candidates in Delta and Redis.

It follows the events as they land in the lake, so it needs to know neither Kafka nor the edges' Redis. A batch of new
events only says which regions have something new: a task a region then reads the window's events, which the lake holds
once each, and joins them with the last build's affinity and the rules. So a batch that is done again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs import in_tasks, order_files, pricing
from spark_jobs.kernels import blending, pricer, trends
from spark_jobs.kernels.blending import Candidate, Goods
from spark_jobs.kernels.products import UNKNOWN, Ints, Products
from spark_jobs.parquet_files import held
from tandem import config, merchandising
from tandem import rules as rules_file
from tandem.merchandising import LEVEL, Product
from tandem.regions import Region
from tandem.rules import Rules
from tandem.segments import ALL
from tandem.settings import Settings
from warehouse import arrivals, lake

SESSION, CUSTOMER = 0, 1
"""Kinds of names of shoppers; an order of nobody counts as a customer of its own."""
TABLES = ("exposures", "outcomes", "activity", "sales_lines")
"""What signals are read from."""


@dataclass(frozen=True)
class Sources:
    """What a task needs to know to find a region's candidates."""

    settings: Settings
    rules: Rules
    lines: Sequence[int]
    """Of rules.toml at which each rule begins."""
    as_of: date | None
    """Of the newest build; None: there is none."""
    now: datetime


@dataclass(frozen=True)
class Found:
    """Candidates of one region, with the floors of their products (minor units)."""

    region: str
    candidates: list[Candidate]
    floors: dict[str, int]


def sources(settings: Settings, now: datetime) -> Sources:
    """What holds now: rules.toml, and the newest build."""
    path = config.path_of(settings.config_folder, "rules.toml")
    days = [file.values["as_of"] for file in order_files.active(settings, "affinity")]
    as_of = date.fromisoformat(max(days)) if days else None
    return Sources(settings, rules_file.load(settings.config_folder), rules_file.lines(path), as_of, now)


def found(known: Sources, regions: Iterator[Region]) -> Iterator[pa.RecordBatch]:
    """The work of a task, for `in_tasks.each`: a Found for each region."""
    for region in regions:
        yield in_tasks.given([of_region(known, region)])


def of_region(known: Sources, region: Region) -> Found:
    """The candidates of one region at this moment; none before the first build."""
    signals = of_window(known, region)
    if known.as_of is None or not len(signals):
        return Found(region.name, [], {})
    pairs = _affinity(known, region.name, pc.unique(signals["sku"]))
    goods = _goods(known, region, pc.unique(pa.chunked_array([*signals["sku"].chunks, *_sides(pairs)])))
    rules = known.rules
    now = int(known.now.timestamp() * 1e6)
    best = blending.candidates(signals, pairs, goods, now, rules.live, rules.bundling, region.name, region.k)
    named = {sku for each in best for sku in (each.anchor, each.companion)}
    return Found(region.name, best, {sku: floor for sku, floor in goods.floor.items() if sku in named})


def _sides(pairs: pa.Table) -> list[pa.Array]:
    return [chunk for name in ("anchor", "companion") for chunk in pairs[name].chunks]


def of_window(known: Sources, region: Region) -> pa.Table:
    """The signals of the window, rows of blending.SIGNALS; what has no shopper's name is nobody's and says nothing."""
    since = known.now - timedelta(minutes=known.rules.live.window_minutes)
    read = {table: _since(known, table, region.name, since) for table in TABLES}
    parts = [
        _events(read["exposures"], read["exposures"]["anchor"], None),
        _events(read["outcomes"], read["outcomes"]["anchor"], read["outcomes"]["kind"]),
        _events(read["activity"], read["activity"]["sku"], read["activity"]["kind"]),
        _sales(_willing(known, read["sales_lines"], region)),
    ]
    return pa.concat_tables(parts)


def _since(known: Sources, table: str, region: str, since: datetime) -> pa.Table:
    """Rows of the region with a time from `since` on; those ahead of this clock count as of now."""
    at, part = ("ordered_at", "month") if table == "sales_lines" else ("at", "day")
    first = f"{since:%Y-%m}" if part == "month" else since.date()
    where = (pc.field("region") == region) & (pc.field(part) >= first)
    where &= pc.field(at) >= pa.scalar(since, pa.timestamp("us", "UTC"))
    rows = lake.open_table(known.settings, table).to_pyarrow_dataset().to_table(filter=where)
    return rows.rename_columns({at: "at"})


def _events(rows: pa.Table, sku: pa.ChunkedArray, kind: pa.ChunkedArray | None) -> pa.Table:
    weight = pa.chunked_array([pa.repeat(trends.WEIGHTS["view"], len(rows))]) if kind is None else _weights(kind)
    told = _signals(rows["session_id"], SESSION, sku, rows["at"], weight)
    return told.filter(pc.and_(pc.is_valid(told["actor"]), pc.is_valid(told["sku"])))


def _weights(kind: pa.ChunkedArray) -> pa.Array:
    return pa.array([trends.WEIGHTS.get(each, trends.WEIGHTS["view"]) for each in kind.to_pylist()], pa.float64())


def _sales(rows: pa.Table) -> pa.Table:
    """Lines that were sold; returns take nothing back of what was felt."""
    rows = rows.filter(pc.greater(rows["quantity"], 0))
    nobody = pc.binary_join_element_wise("order", rows["order_id"], "\t")
    customer = pc.binary_join_element_wise("customer", rows["customer_id"], "\t")
    weight = pa.repeat(trends.WEIGHTS["purchase"], len(rows))
    return _signals(pc.coalesce(customer, nobody), CUSTOMER, rows["sku"], rows["at"], weight)


def _signals(actor: Any, kind: int, sku: Any, at: Any, weight: Any) -> pa.Table:
    columns = [actor, pa.repeat(pa.scalar(kind, pa.int64()), len(actor)), sku, at, weight]
    kinds = [field.type for field in blending.SIGNALS]
    return pa.table([column.cast(kind) for column, kind in zip(columns, kinds, strict=True)], schema=blending.SIGNALS)


def _willing(known: Sources, sales: pa.Table, region: Region) -> pa.Table:
    """Without the orders of customers who did not consent to every purpose that the region asks for."""
    if not region.consent_purposes:
        return sales
    rows = arrivals.customers(known.settings, pc.unique(sales["customer_id"].drop_null()).to_pylist())
    purposes = set(region.consent_purposes)
    willing = pa.array([row["customer_id"] for row in rows if purposes <= set(row["consents"])], pa.string())
    own = pc.is_in(sales["customer_id"], willing)
    return sales.filter(pc.or_(pc.is_null(sales["customer_id"]), own))


def _affinity(known: Sources, region: str, skus: pa.Array) -> pa.Table:
    """What the last build knows of pairs with one of `skus`, rows of blending.KNOWN."""
    where = (pc.field("as_of") == known.as_of) & (pc.field("region") == region) & (pc.field("segment") == ALL)
    where &= pc.field("anchor").isin(skus) | pc.field("companion").isin(skus)
    held_rows = lake.open_table(known.settings, "affinity").to_pyarrow_dataset()
    return held_rows.to_table(columns=list(blending.KNOWN), filter=where)


def _goods(known: Sources, region: Region, skus: pa.Array) -> Goods:
    products = _bundled(known, skus)
    catalogue = held(known.settings, "products"), held(known.settings, "prices")
    told = [part.filter(pc.is_in(part["sku"], skus)) for part in pricing.catalogue(*catalogue, region)]
    priced = pricer.known_products(pricer.by_kind(pa.concat_tables(told)), known.rules.pricing)
    rules = merchandising.resolve(known.rules.rule, known.lines, products.values(), known.now.date())
    prices, floors = (_known(priced, amounts) for amounts in (priced.price, priced.floor))
    return Goods(products, prices, floors, rules, _listed(known, region.name, skus))


def _listed(known: Sources, region: str, anchors: pa.Array) -> dict[str, set[str]]:
    """The bundles of each anchor in the last build's lists for the whole region."""
    where = (pc.field("as_of") == known.as_of) & (pc.field("region") == region) & (pc.field("segment") == ALL)
    lists = lake.open_table(known.settings, "bundle_sets").to_pyarrow_dataset()
    rows = lists.to_table(columns=["anchor", "bundles"], filter=where & pc.field("anchor").isin(anchors)).to_pylist()
    return {row["anchor"]: {place["bundle_id"] for place in row["bundles"]} for row in rows}


def _known(priced: Products, amounts: Ints) -> dict[str, int]:
    """By SKU the amounts that are known."""
    pairs = zip(priced.skus.to_pylist(), amounts.tolist(), strict=True)
    return {sku: amount for sku, amount in pairs if amount != UNKNOWN}


def _bundled(known: Sources, skus: pa.Array) -> dict[str, Product]:
    """Of `skus` those that may be bundled, as facts.catalogue has them."""
    where = pc.field("sku").isin(skus) & pc.field("active")
    held_rows = lake.open_table(known.settings, "products").to_pyarrow_dataset()
    rows = held_rows.to_table(columns=["sku", "brand", "category"], filter=where).to_pylist()
    bundling = known.rules.bundling
    out = set(bundling.exclude_categories)
    return {
        row["sku"]: Product(row["sku"], row["brand"] or "", row["category"] or "")
        for row in rows
        if row["sku"] not in bundling.exclude_skus and not out & set((row["category"] or "").split(LEVEL))
    }
