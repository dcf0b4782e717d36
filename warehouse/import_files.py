"""A retailer's own files into the lake: what can be used goes in, what can't is kept with its reason."""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tandem.errors import InputError
from tandem.regions import Regions
from tandem.settings import Settings
from warehouse import derived, doors, lake, mapping, regions_in_data
from warehouse.doors import Refusal
from warehouse.mapping import Kind
from warehouse.put import Put, merge, merge_sales, put
from warehouse.reading import Raw, Say, read
from warehouse.tables import CUSTOMERS, PRICES, PRODUCTS, REJECTED_ROWS, SALES_LINES, STOCK
from warehouse.views import connect, first, quoted

KINDS: tuple[Kind, ...] = ("orders", "catalog", "prices", "stock", "customers")


def run(
    settings: Settings, files: Mapping[str, str], mapping_file: Path | None, say: Say, *, regions_from_data: bool
) -> None:
    """Import `files` (kind to file, folder or glob). The same files a second time change nothing.

    Rows that can't be used go to `rejected_rows`. Raises InputError or ConfigError, before anything is written, where
    a file as a whole, the mapping or the regions are wrong.
    """
    spelled = mapping.load(mapping_file)
    given: list[Kind] = [kind for kind in KINDS if kind in files]
    if "orders" not in given and not _has_orders(settings):
        raise InputError("no orders are known yet and none are given; add --orders FILE")
    with connect(settings) as connection:
        raws = [read(connection, settings, kind, files[kind], spelled, say) for kind in given]
        regions = regions_in_data.settle(connection, settings, raws, say, from_data=regions_from_data)
        _known_regions(connection, regions)
        for raw in raws:
            CHECKS[raw.kind](connection, raw, spelled, regions)
        lake.create(settings)
        for raw in raws:
            _write(connection, settings, raw, say)
        derived.complete(settings, set(given), say)


def _has_orders(settings: Settings) -> bool:
    return lake.exists(settings, SALES_LINES.name) and bool(lake.open_table(settings, SALES_LINES.name).count())


def _known_regions(connection: Any, regions: Regions) -> None:
    rows = ", ".join(f"({quoted(region.name)}, {quoted(region.currency)})" for region in regions.region)
    connection.execute(f"CREATE TABLE regions AS SELECT * FROM (VALUES {rows}) AS t(known_region, region_currency)")


def _check_orders(connection: Any, raw: Raw, spelled: mapping.Mapping, regions: Regions) -> None:
    """`checked_orders`: each row with its values, and reason and detail where it can't be used."""
    form = spelled.orders.format
    refusals = [
        *(doors.missing(column) for column in mapping.REQUIRED["orders"]),
        Refusal("missing_value", "home IS NULL", "'region is empty'"),
        *doors.not_an_instant("ordered_at", form),
        *doors.not_a_number("quantity", form, doors.MOST_UNITS),
        *doors.not_a_number("unit_price", form, doors.MOST_MONEY),
        *doors.not_a_number("list_price", form, doors.MOST_MONEY),
        Refusal("zero_quantity", "CAST(quantity_value AS DECIMAL(12,3)) = 0", "'quantity is 0'"),
        *_of_currency("paid_in"),
        Refusal("duplicate_line", "copy > 1", "'every column is as in an earlier line of the order ' || order_id"),
    ]
    net = "(CAST(quantity_value AS DECIMAL(12,3)) * unit_price_value)"
    connection.execute(f"""
        CREATE TABLE checked_orders AS
            SELECT *, {doors.first_of(refusals)}
            FROM (SELECT *, coalesce(upper(currency), region_currency) AS paid_in,
                         row_number() OVER (PARTITION BY order_id, home, same ORDER BY file_number, row) AS copy,
                         {doors.instant("ordered_at", form)} AS ordered_at_value,
                         {doors.numbers(("quantity", "unit_price", "list_price"), form)}
                  FROM (SELECT *, {regions_in_data.home_of_rows(raw, regions)} AS home FROM {raw.table})
                  LEFT JOIN regions ON known_region = home);
        CREATE TABLE usable_orders AS
            SELECT home AS region, strftime(ordered_at_value AT TIME ZONE 'UTC', '%Y-%m') AS month, order_id,
                   row_number() OVER (PARTITION BY home, order_id ORDER BY file_number, row) AS line,
                   ordered_at_value AS ordered_at, sku, CAST(quantity_value AS DECIMAL(12,3)) AS quantity,
                   {doors.minor_units("unit_price_value", "paid_in")} AS unit_price_cents,
                   {doors.minor_units(net, "paid_in")} AS net_cents,
                   {doors.minor_units("list_price_value", "paid_in")} AS list_price_cents,
                   paid_in AS currency, customer_id, source
            FROM checked_orders WHERE reason IS NULL ORDER BY region, month, order_id, line;
    """)


def _of_currency(column: str) -> list[Refusal]:
    """Refusals for a currency that is none, or is not the region's."""
    return [
        doors.unknown_currency(column),
        Refusal(
            "other_currency",
            f"{column} <> region_currency",
            f"'currency ' || {column} || ' is not that of the region, ' || region_currency",
        ),
    ]


def _check_catalog(connection: Any, raw: Raw, spelled: mapping.Mapping, regions: Regions) -> None:
    form = spelled.catalog.format
    if {"unit_cost", "minimum_advertised_price"} & raw.columns and "currency" not in raw.columns:
        currencies = sorted({region.currency for region in regions.region})
        if len(currencies) > 1:
            raise InputError(
                f"catalog: costs without a currency, and the regions have several ({', '.join(currencies)}); "
                f'say it in the mapping, [catalog.constant] currency = "{currencies[0]}"'
            )
        fallback = quoted(currencies[0])
    else:
        fallback = "NULL"
    yes, no = "('true', 'yes', 'y', '1', 't', 'active')", "('false', 'no', 'n', '0', 'f', 'inactive')"
    money = ("unit_cost", "minimum_advertised_price")
    refusals = [
        doors.missing("sku"),
        *(refusal for column in money for refusal in doors.not_a_number(column, form, doors.MOST_MONEY)),
        *(Refusal("negative_amount", f"{column}_value < 0", quoted(f"{column} is negative")) for column in money),
        doors.unknown_currency("valued_in"),
        Refusal(
            "missing_value",
            "valued_in IS NULL AND (unit_cost IS NOT NULL OR minimum_advertised_price IS NOT NULL)",
            "'currency is empty'",
        ),
        Refusal(
            "bad_flag", f"lower(active) NOT IN {yes} AND lower(active) NOT IN {no}", "'active is neither yes nor no'"
        ),
        _superseded("sku"),
    ]
    connection.execute(f"""
        CREATE TABLE checked_catalog AS
            SELECT *, {doors.first_of(refusals)} FROM (
                SELECT *, coalesce(upper(currency), {fallback}) AS valued_in, {_latest_first("sku")},
                       {doors.numbers(money, form)} FROM {raw.table});
        CREATE TABLE usable_catalog AS
            SELECT sku, coalesce(title, sku) AS title, brand, category,
                   {doors.minor_units("unit_cost_value", "valued_in")} AS unit_cost_cents,
                   {doors.minor_units("minimum_advertised_price_value", "valued_in")}
                       AS minimum_advertised_price_cents,
                   CASE WHEN unit_cost IS NOT NULL OR minimum_advertised_price IS NOT NULL THEN valued_in END
                       AS currency,
                   image_url, coalesce(lower(active) IN {yes}, true) AS active, source
            FROM checked_catalog WHERE reason IS NULL ORDER BY sku;
    """)


def _check_prices(connection: Any, raw: Raw, spelled: mapping.Mapping, regions: Regions) -> None:
    """Prices without a region hold in every region of their currency."""
    form = spelled.prices.format
    reduced, regular = "sale_price_value", "list_price_value"
    refusals = [
        *(doors.missing(column) for column in mapping.REQUIRED["prices"]),
        *doors.not_a_number("list_price", form, doors.MOST_MONEY),
        *doors.not_a_number("sale_price", form, doors.MOST_MONEY),
        Refusal("not_positive", f"{regular} <= 0", "'list_price is not more than 0'"),
        Refusal("not_positive", f"{reduced} <= 0", "'sale_price is not more than 0'"),
        Refusal("sale_above_list", f"{reduced} > {regular}", "'sale_price is more than list_price'"),
        *_of_currency("priced_in"),
        _superseded("sku"),
    ]
    currency = "coalesce(upper(currency), region_currency)"
    connection.execute(f"""
        CREATE TABLE checked_prices AS
            SELECT *, {doors.first_of(refusals)} FROM (
                SELECT *, {_latest_first("home, sku, " + currency)}, {currency} AS priced_in,
                       {doors.numbers(("list_price", "sale_price"), form)}
                FROM (SELECT *, {regions_in_data.name_in("region")} AS home FROM {raw.table})
                LEFT JOIN regions ON known_region = home);
        CREATE TABLE usable_prices AS
            WITH everywhere AS (
                SELECT regions.known_region AS region,
                       held.* EXCLUDE (region, known_region, region_currency, priced_in),
                       regions.region_currency AS priced_in, home IS NULL AS general
                FROM checked_prices AS held
                JOIN regions ON regions.known_region = coalesce(home, regions.known_region)
                    AND regions.region_currency = coalesce(held.priced_in, regions.region_currency)
                WHERE reason IS NULL)
            SELECT region, sku, {doors.minor_units(regular, "priced_in")} AS list_price_cents,
                   CASE WHEN {reduced} < {regular} THEN {doors.minor_units(reduced, "priced_in")} END
                       AS sale_price_cents,
                   priced_in AS currency, {_at(raw)} AS prices_as_of, source
            FROM everywhere WHERE {doors.minor_units(regular, "priced_in")} > 0
            QUALIFY row_number() OVER (PARTITION BY region, sku ORDER BY general) = 1 ORDER BY region, sku;
    """)


def _check_stock(connection: Any, raw: Raw, spelled: mapping.Mapping, regions: Regions) -> None:
    """Whole units that can be sold; a negative count is none. Without a region, in the only region there is."""
    form = spelled.stock.format
    refusals = [
        *(doors.missing(column) for column in mapping.REQUIRED["stock"]),
        Refusal("missing_value", "home IS NULL", "'region is empty'"),
        *doors.not_a_number("on_hand", form, doors.MOST_MONEY),
        _superseded("sku"),
    ]
    connection.execute(f"""
        CREATE TABLE checked_stock AS
            SELECT *, {doors.first_of(refusals)} FROM (
                SELECT *, {_latest_first("home, sku")}, {doors.numbers(["on_hand"], form)}
                FROM (SELECT *, {regions_in_data.home_of_rows(raw, regions)} AS home FROM {raw.table}));
        CREATE TABLE usable_stock AS
            SELECT home AS region, sku, CAST(greatest(floor(on_hand_value), 0) AS BIGINT) AS on_hand,
                   {_at(raw)} AS stock_as_of, source
            FROM checked_stock WHERE reason IS NULL ORDER BY region, sku;
    """)


def _check_customers(connection: Any, raw: Raw, spelled: mapping.Mapping, regions: Regions) -> None:
    refusals = [doors.missing("customer_id"), _superseded("customer_id")]
    connection.execute(f"""
        CREATE TABLE checked_customers AS
            SELECT *, {doors.first_of(refusals)} FROM (SELECT *, {_latest_first("customer_id")} FROM {raw.table});
        CREATE TABLE usable_customers AS
            SELECT customer_id, {regions_in_data.name_in("region")} AS region,
                   list_sort(list_distinct(list_filter(list_transform(string_split(coalesce(consents, ''), ';'),
                       lambda purpose: trim(purpose)), lambda purpose: purpose <> ''))) AS consents,
                   attributes, source
            FROM checked_customers WHERE reason IS NULL ORDER BY customer_id;
    """)


def _latest_first(key: str) -> str:
    return f"row_number() OVER (PARTITION BY {key} ORDER BY file_number DESC, row DESC) AS copy"


def _superseded(column: str) -> Refusal:
    """Where a key comes twice, the last row counts."""
    return Refusal("superseded", "copy > 1", f"{quoted(column + ' ')} || {column} || ' comes again in a later row'")


def _at(raw: Raw) -> str:
    return f"TIMESTAMPTZ {quoted(raw.changed_at.isoformat())}"


CHECKS: dict[Kind, Callable[[Any, Raw, mapping.Mapping, Regions], None]] = {
    "orders": _check_orders,
    "catalog": _check_catalog,
    "prices": _check_prices,
    "stock": _check_stock,
    "customers": _check_customers,
}


def _write(connection: Any, settings: Settings, raw: Raw, say: Say) -> None:
    """The usable rows to their table, the others to `rejected_rows`."""
    done = _merge(connection, settings, raw.kind)
    say(f"{raw.kind}: {done}")
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE refused AS
            SELECT '{raw.kind}' AS file, source, row, reason, detail, text
            FROM checked_{raw.kind} WHERE reason IS NOT NULL
            UNION ALL SELECT file, source, row, 'ragged_row', detail, text FROM ragged WHERE file = '{raw.kind}'
    """)
    sources = ", ".join(map(quoted, raw.names))
    put(connection, settings, REJECTED_ROWS, "refused", f"file = '{raw.kind}' AND source IN ({sources})")
    counts = connection.sql("SELECT reason, count(*) FROM refused GROUP BY ALL ORDER BY 2 DESC, 1").fetchall()
    if counts:
        told = ", ".join(f"{reason} {count:,}" for reason, count in counts)
        say(f"{raw.kind}: {sum(count for _, count in counts):,} rows rejected: {told} (see table rejected_rows)")


def _merge(connection: Any, settings: Settings, kind: Kind) -> Put:
    if not first(connection, f"SELECT count(*) FROM usable_{kind}")[0]:
        return Put(0, False)
    if kind == "orders":
        return merge_sales(connection, settings, SALES_LINES, "usable_orders")
    if kind == "catalog":
        return merge(connection, settings, PRODUCTS, "usable_catalog", ("sku",))
    if kind == "customers":
        return merge(connection, settings, CUSTOMERS, "usable_customers", ("customer_id",))
    table = PRICES if kind == "prices" else STOCK
    return merge(connection, settings, table, f"usable_{kind}", ("region", "sku"))
