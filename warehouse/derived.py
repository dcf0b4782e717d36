"""What a retailer did not bring, as far as sales tell it: products from their SKUs, prices from what was paid."""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

from collections.abc import Set
from typing import Any

from tandem.settings import Settings
from warehouse import lake
from warehouse.mapping import Kind
from warehouse.put import merge
from warehouse.reading import Say
from warehouse.tables import PRICES, PRODUCTS, STOCK
from warehouse.views import connect, first

SOURCE = "derived from sales_lines"


def complete(settings: Settings, given: Set[Kind], say: Say) -> None:
    """Add what is missing, and say what was derived and what stays unknown. What was brought is never changed."""
    from_sales(settings, say)
    if not lake.open_table(settings, STOCK.name).count():
        say("stock: none brought, so nothing can be offered until it is known: import --stock FILE or post deltas")
    if "customers" not in given:
        say("customers: none brought now; segments rest on behaviour and on what was brought before")


def from_sales(settings: Settings, say: Say) -> None:
    """Add products and prices that sales tell of and nobody brought."""
    with connect(settings, ["sales_lines", "products", "prices"]) as lake_view:
        _products(lake_view, settings, say)
        _prices(lake_view, settings, say)


def _products(connection: Any, settings: Settings, say: Say) -> None:
    connection.execute(f"""
        CREATE TEMP TABLE new_products AS
            SELECT DISTINCT sku, sku AS title, NULL AS brand, NULL AS category, NULL AS unit_cost_cents,
                   NULL AS minimum_advertised_price_cents, NULL AS currency, NULL AS image_url, true AS active,
                   '{SOURCE}' AS source
            FROM sales_lines ANTI JOIN products USING (sku) ORDER BY sku;
        DROP VIEW products;
    """)
    if count := first(connection, "SELECT count(*) FROM new_products")[0]:
        merge(connection, settings, PRODUCTS, "new_products", ("sku",))
        say(f"products: {count:,} that no catalogue names derived from the orders, their title is the SKU")


def _prices(connection: Any, settings: Settings, say: Say) -> None:
    """The latest price paid for one unit, and the list price of that line where it is higher."""
    connection.execute(f"""
        CREATE TEMP TABLE brought AS SELECT region, sku FROM prices WHERE source <> '{SOURCE}';
        CREATE TEMP TABLE seen AS
            SELECT region, sku, greatest(last.paid, last.list) AS list_price_cents, NULL AS sale_price_cents,
                   last.currency AS currency, last.at AS prices_as_of, '{SOURCE}' AS source
            FROM (SELECT region, sku,
                         arg_max({{'paid': unit_price_cents, 'list': list_price_cents, 'currency': currency,
                                   'at': ordered_at}},
                                 (ordered_at, order_id, line)) AS last
                  FROM sales_lines WHERE quantity > 0 AND unit_price_cents > 0 GROUP BY ALL)
            ANTI JOIN brought USING (region, sku) ORDER BY region, sku;
        DROP VIEW prices;
    """)
    if count := first(connection, "SELECT count(*) FROM seen")[0]:
        merge(connection, settings, PRICES, "seen", ("region", "sku"))
        say(f"prices: {count:,} that no price list names derived from the latest sale")
