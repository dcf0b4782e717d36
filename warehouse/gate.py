"""The gate: no region sees a build that misses what `gates.toml` asks for."""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

from tandem import gates, offer, rules
from tandem import regions as regions_file
from tandem.bundle import Bundle, Component
from tandem.errors import TandemError
from tandem.gates import Gates
from tandem.money import BPS
from tandem.regions import Region
from tandem.settings import Settings
from warehouse.views import connect, quoted

EXAMPLES = 5
ENOUGH = 10**9
"""Stock that never stands in the way of a price."""

READ = ("bundles", "bundle_sets", "products", "prices", "releases", "evaluations")

SHIPPED = "hit@5/ranker"
"""The metric of what is shipped: shoppers who find what they wanted among the first five."""

BY_RULE = "(evidence.basis = 'rule' AND evidence.customers_together = 0 AND evidence.orders_together = 0)"
"""A bundle that a merchandiser asks for tells nothing about customers, so it needs none."""


class Measured(NamedTuple):
    """One gate of one region: what it asks for and what was found."""

    region: str
    gate: str
    figure: float
    limit: float
    examples: list[str]
    """Up to five of what is wrong."""

    @property
    def passed(self) -> bool:
        return self.figure >= self.limit if self.gate.startswith("min_") else self.figure <= self.limit

    def __str__(self) -> str:
        side = "at least" if self.gate.startswith("min_") else "at most"
        text = f"{self.region}: {self.gate} is {self.figure:.6g}, {side} {self.limit:.6g} asked for"
        return text if self.passed or not self.examples else f"{text}; such as {', '.join(self.examples)}"


Breach = Measured


def run(settings: Settings, as_of: date, say: Callable[[str], None]) -> None:
    """Say every figure; raise TandemError that lists each breach with examples."""
    measured = measure(settings, as_of)
    for found in measured:
        say(f"{'passed' if found.passed else 'BREACH'}  {found}")
    breaches = [str(found) for found in measured if not found.passed]
    if breaches:
        listed = "\n  ".join(breaches)
        raise TandemError(
            f"the build of {as_of} does not pass the gate and is not published; mend it or gates.toml:\n  {listed}"
        )


def check(settings: Settings, as_of: date) -> list[Breach]:
    """The gates that the build of `as_of` does not pass; empty where it may be published."""
    return [found for found in measure(settings, as_of) if not found.passed]


def measure(settings: Settings, as_of: date) -> list[Measured]:
    """Every gate of every region."""
    asked, found = gates.load(settings.config_folder), rules.load(settings.config_folder)
    regions = regions_file.load(settings.config_folder).region
    asking = any(region.lowest_price_days for region in regions)
    with connect(settings, (*READ, "sales_lines") if asking else READ) as connection:
        _prepare(connection, as_of)
        return [
            measured
            for region in regions
            for measured in _measure_region(connection, region, as_of, asked, found.pricing)
        ]


def _prepare(connection: Any, as_of: date) -> None:
    """The day's bundles and their components, each with what catalogue and prices say about it today."""
    connection.execute(f"""
        CREATE TEMP TABLE built AS
            SELECT region, segment, bundle_id, discount_bps, evidence, components, row_number() OVER () AS number
            FROM bundles WHERE as_of = DATE '{as_of}';
        CREATE TEMP TABLE lists AS
            SELECT region, anchor FROM bundle_sets WHERE as_of = DATE '{as_of}' AND len(bundles) > 0;
        CREATE TEMP TABLE hits AS
            SELECT as_of, region, value FROM evaluations WHERE segment = '*' AND metric = '{SHIPPED}';
        CREATE TEMP TABLE parts AS
            SELECT number, built.region, counted,
                   part.sku AS sku, part.quantity AS quantity, part.floor_cents AS floor_cents,
                   coalesce(products.active, false) AS active, unit_cost_cents, minimum_advertised_price_cents,
                   products.currency IS NOT DISTINCT FROM prices.currency AS same_currency,
                   list_price_cents, coalesce(sale_price_cents, list_price_cents) AS price_cents
            FROM (SELECT number, region, evidence.orders_together > 0 AS counted, unnest(components) AS part FROM built)
                AS built
            LEFT JOIN products ON products.sku = part.sku
            LEFT JOIN prices ON prices.region = built.region AND prices.sku = part.sku;
    """)


def _measure_region(
    connection: Any, region: Region, as_of: date, asked: Gates, pricing: rules.Pricing
) -> list[Measured]:
    here = f"region = {quoted(region.name)}"
    anchors, lists = connection.sql(f"SELECT count(DISTINCT anchor), count(*) FROM lists WHERE {here}").fetchall()[0]
    bundles = connection.sql(f"SELECT count(*) FROM built WHERE {here}").fetchall()[0][0]
    orphans, orphan_examples = _bundles_where(connection, here, "NOT active")
    unpriced, unpriced_examples = _bundles_where(connection, here, "price_cents IS NULL AND counted")
    below_floor = _below_floor(connection, here, pricing)
    if region.lowest_price_days:
        below_floor += _not_from_lowest(connection, here, as_of, region.lowest_price_days)
    below_k = connection.sql(f"""
        SELECT bundle_id || ' with ' || evidence.customers_together FROM built
        WHERE {here} AND evidence.customers_together < {region.k} AND NOT {BY_RULE} ORDER BY ALL
    """).fetchall()

    def measured(gate: str, figure: float, examples: list[str]) -> Measured:
        return Measured(region.name, gate, figure, getattr(asked, gate), examples[:EXAMPLES])

    return [
        measured("min_anchors", anchors, []),
        measured("min_anchor_share_of_current", _share_of_current(connection, here, lists), []),
        measured("min_hits_share_of_current", _hits_share_of_current(connection, region.name, as_of), []),
        measured("max_orphan_share", orphans / max(bundles, 1), orphan_examples),
        measured("max_unpriced_share", unpriced / max(bundles, 1), unpriced_examples),
        measured("max_below_floor", len(below_floor), below_floor),
        measured("max_below_k", len(below_k), [row[0] for row in below_k[:EXAMPLES]]),
    ]


def _bundles_where(connection: Any, here: str, condition: str) -> tuple[int, list[str]]:
    """How many bundles have a component of which `condition` is true, and some of them with that component."""
    found = f"FROM parts WHERE {here} AND {condition}"
    count = connection.sql(f"SELECT count(DISTINCT number) {found}").fetchall()[0][0]
    rows = connection.sql(f"""
        SELECT DISTINCT bundle_id || ' with ' || sku FROM (SELECT number, sku {found}) JOIN built USING (number)
        ORDER BY ALL LIMIT {EXAMPLES}
    """).fetchall()
    return count, [row[0] for row in rows]


def _share_of_current(connection: Any, here: str, lists: int) -> float:
    """Anchor lists of this build, over those of the release that is current; 1 where none is or none were counted."""
    rows = connection.sql(f"""
        SELECT counted FROM (
            SELECT release_id, arg_max(state, "at") AS state, arg_max(anchors, "at") AS counted, max("at") AS since
            FROM releases WHERE {here} GROUP BY release_id)
        WHERE state = 'current' ORDER BY since DESC LIMIT 1
    """).fetchall()
    return lists / rows[0][0] if rows and rows[0][0] else 1.0


def _hits_share_of_current(connection: Any, region: str, as_of: date) -> float:
    """SHIPPED of this build, over that of the build whose release is current; 1 where one of them was not measured."""
    rows = connection.execute(
        """
        WITH current AS (
            SELECT as_of FROM (
                SELECT as_of, arg_max(state, "at") AS state, max("at") AS since
                FROM releases WHERE region = $region GROUP BY release_id, as_of)
            WHERE state = 'current' ORDER BY since DESC LIMIT 1),
        nearest AS (
            SELECT as_of, arg_max(value, region = $region) AS value
            FROM hits WHERE region IN ($region, '*') GROUP BY as_of)
        SELECT now.value / before.value FROM nearest AS now, nearest AS before, current
        WHERE now.as_of = $as_of AND before.as_of = current.as_of AND before.value > 0
        """,
        {"region": region, "as_of": as_of},
    ).fetchall()
    return float(rows[0][0]) if rows else 1.0


def _below_floor(connection: Any, here: str, pricing: rules.Pricing) -> list[str]:
    """Bundles that the edge would price below a floor which today's cost or advertised minimum sets.

    The floors inside the bundle are not trusted: floors are made anew from the catalogue and `rules.toml`. A rough
    bound in SQL finds the bundles to look at, the edge's own arithmetic decides.
    """
    cost = f"(unit_cost_cents * {BPS + pricing.min_margin_bps} + {BPS - 1}) // {BPS}"
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE floors AS
            SELECT *, CASE WHEN same_currency THEN greatest({cost}, minimum_advertised_price_cents) END AS true_floor
            FROM parts WHERE {here}
    """)
    rows = connection.sql(f"""
        WITH suspects AS (
            SELECT DISTINCT number FROM floors JOIN built USING (number)
            WHERE greatest(price_cents * ({BPS} - discount_bps) // {BPS} - 1, floor_cents) < true_floor)
        SELECT bundle_id, discount_bps, list((sku, quantity, floor_cents, price_cents, true_floor) ORDER BY sku)
        FROM floors JOIN suspects USING (number) JOIN built USING (number) GROUP BY number, bundle_id, discount_bps
        ORDER BY bundle_id
    """).fetchall()
    found = [f"{bundle} with {sku}" for bundle, bps, parts in rows if (sku := _first_below_floor(bundle, bps, parts))]
    return sorted(found)


def _not_from_lowest(connection: Any, here: str, as_of: date, days: int) -> list[str]:
    """Bundles with a discount from today's price of a component that was cheaper in the days the law looks back on.

    The edge announces a discount from today's prices. Where the law asks for one from the lowest price of the `days`
    before (Directive 98/6/EC, art. 6a), that is only right if no component was cheaper in them.
    """
    rows = connection.sql(f"""
        WITH lowest AS (
            SELECT sku, min(unit_price_cents) AS lowest_cents FROM sales_lines
            WHERE {here} AND quantity > 0 AND unit_price_cents > 0
              AND ordered_at >= TIMESTAMPTZ '{as_of} 00:00:00Z' - INTERVAL {days} DAY
              AND ordered_at < TIMESTAMPTZ '{as_of} 00:00:00Z'
            GROUP BY sku)
        SELECT DISTINCT bundle_id || ' with ' || sku
        FROM (SELECT number, sku, price_cents FROM parts WHERE {here})
        JOIN lowest USING (sku) JOIN built USING (number)
        WHERE discount_bps > 0 AND price_cents > lowest_cents ORDER BY ALL
    """).fetchall()
    return [row[0] for row in rows]


def _first_below_floor(bundle_id: str, discount_bps: int, parts: list[tuple[Any, ...]]) -> str | None:
    prices = {sku: price for sku, _, _, price, _ in parts}
    components = tuple(Component(sku, quantity, floor) for sku, quantity, floor, _, _ in parts)
    floors = {sku: true_floor or 0 for sku, *_, true_floor in parts}
    bundle = Bundle(bundle_id, components, discount_bps, 0, 0.0)
    offered = offer.price(bundle, lambda sku: offer.Live(ENOUGH, prices[sku]))
    under = (
        part.sku
        for part in (offered.components if offered else ())
        if part.offer_price < floors[part.sku] * part.quantity
    )
    return next(under, None)
