"""The gate: no region sees a build that misses what `gates.toml` asks for."""

# ruff: noqa: S608 - names in this SQL are ours, values are quoted
from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, NamedTuple

from tandem import gates, offer, release, rules
from tandem import regions as regions_file
from tandem.bundle import Bundle, Component
from tandem.errors import TandemError
from tandem.gates import Gates
from tandem.money import BPS
from tandem.regions import Region
from tandem.settings import Settings
from warehouse import ledger, release_diff
from warehouse.views import connect, first, quoted

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
    release_id: str = ""
    """Of the build; empty where there is none."""

    @property
    def passed(self) -> bool:
        return self.figure >= self.limit if self.gate.startswith("min_") else self.figure <= self.limit

    def __str__(self) -> str:
        side = "at least" if self.gate.startswith("min_") else "at most"
        text = f"{self.region}: {self.gate} is {self.figure:.6g}, {side} {self.limit:.6g} asked for"
        return text if self.passed or not self.examples else f"{text}; such as {', '.join(self.examples)}"


Breach = Measured


def run(
    settings: Settings, as_of: date, say: Callable[[str], None], overrides: Iterable[str] = (), reason: str = ""
) -> None:
    """Say every figure; raise TandemError that lists each breach with examples.

    The gates that `overrides` names let this build pass, for `reason`: the ledger keeps who said so and why, and later
    runs of the gate on the same build go by that. Raises TandemError for an override without a reason or of no gate.
    """
    given = _known(overrides, reason)
    measured = measure(settings, as_of)
    breaches = []
    for found in measured:
        approved = None if found.passed else _approved(settings, as_of, found, given, reason)
        if approved is not None:
            say(f"allowed  {found} ({approved})")
        elif found.passed:
            say(f"passed  {found}")
        else:
            say(f"BREACH  {found}")
            breaches.append(str(found))
    if breaches:
        listed = "\n  ".join(breaches)
        raise TandemError(
            f"the build of {as_of} does not pass the gate and is not published; mend it or gates.toml, or let it pass "
            f"with --override GATE --reason WHY:\n  {listed}"
        )


def _known(overrides: Iterable[str], reason: str) -> frozenset[str]:
    given = frozenset(overrides)
    if given and not reason.strip():
        raise TandemError("an override needs a reason: --reason WHY; it lands in the ledger")
    known = [name for name in Gates.__struct_fields__ if name != "canary"]
    for gate in sorted(given.difference(known)):
        raise TandemError(f"there is no gate {gate}; there are {', '.join(known)}")
    return given


def _approved(settings: Settings, as_of: date, found: Measured, given: frozenset[str], reason: str) -> str | None:
    """Who let the build pass this gate of this region, and why; None where nobody did."""
    before = [
        row
        for row in ledger.history(settings, found.release_id)
        if row["region"] == found.region and row["reason"].startswith(f"{found.gate}: ")
    ]
    if not before and found.gate in given and found.release_id:
        said = f"{found.gate}: {reason} (found {found.figure:.6g}, asked for {found.limit:.6g})"
        state = release.approved(found.release_id, ledger.state(settings, found.region, found.release_id))
        ledger.record(settings, found.region, found.release_id, state, as_of=as_of, reason=said, stays=True)
        return _approved(settings, as_of, found, given, reason)
    return f"by {before[-1]['by']}: {before[-1]['reason']}" if before else None


def built(settings: Settings, as_of: date) -> str:
    """The release that the build of a day is. Raises TandemError where there is none."""
    with connect(settings, ("bundles",)) as connection:
        found = first(connection, f"SELECT max(release_id) FROM bundles WHERE as_of = DATE '{as_of}'")[0]
    if found is None:
        raise TandemError(f"there is no build of {as_of}; run tandem build --as-of {as_of}")
    return str(found)


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
            for measured in _measure_region(settings, connection, region, as_of, asked, found.pricing)
        ]


def _prepare(connection: Any, as_of: date) -> None:
    """The day's bundles and their components, each with what catalogue and prices say about it today."""
    connection.execute(f"""
        CREATE TEMP TABLE built AS
            SELECT region, segment, bundle_id, release_id, discount_bps, evidence, components,
                   row_number() OVER () AS number
            FROM bundles WHERE as_of = DATE '{as_of}';
        CREATE TEMP TABLE lists AS
            SELECT region, segment, anchor, bundles FROM bundle_sets WHERE as_of = DATE '{as_of}' AND len(bundles) > 0;
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
    settings: Settings, connection: Any, region: Region, as_of: date, asked: Gates, pricing: rules.Pricing
) -> list[Measured]:
    here = f"region = {quoted(region.name)}"
    anchors, lists = connection.sql(f"SELECT count(DISTINCT anchor), count(*) FROM lists WHERE {here}").fetchall()[0]
    bundles = connection.sql(f"SELECT count(*) FROM built WHERE {here}").fetchall()[0][0]
    orphans, orphan_examples = _bundles_where(connection, here, "NOT active")
    unpriced, unpriced_examples = _bundles_where(connection, here, "price_cents IS NULL AND counted")
    uncosted, uncosted_examples = _bundles_where(connection, here, "unit_cost_cents IS NULL OR NOT same_currency")
    largest, largest_example = _largest_list(connection, here)
    below_floor = _below_floor(connection, here, pricing)
    if region.lowest_price_days:
        below_floor += _not_from_lowest(connection, here, as_of, region.lowest_price_days)
    made = connection.sql(f"SELECT coalesce(max(release_id), '') FROM built WHERE {here}").fetchall()[0][0]
    churn, churned = _churn(settings, region.name, made, as_of)
    emptied, emptied_names = _emptied(settings, region.name, made, connection)
    below_k = connection.sql(f"""
        SELECT bundle_id || ' with ' || evidence.customers_together FROM built
        WHERE {here} AND evidence.customers_together < {region.k} AND NOT {BY_RULE} ORDER BY ALL
    """).fetchall()

    def measured(gate: str, figure: float, examples: list[str]) -> Measured:
        return Measured(region.name, gate, figure, getattr(asked, gate), examples[:EXAMPLES], made)

    return [
        measured("min_anchors", anchors, []),
        measured("min_anchor_share_of_current", _share_of_current(connection, here, lists), []),
        measured("min_hits_share_of_current", _hits_share_of_current(connection, region.name, as_of), []),
        measured("max_churn", churn, churned),
        measured("max_emptied_segment_share", emptied, emptied_names),
        measured("max_orphan_share", orphans / max(bundles, 1), orphan_examples),
        measured("max_unpriced_share", unpriced / max(bundles, 1), unpriced_examples),
        measured("max_uncosted_share", uncosted / max(bundles, 1), uncosted_examples),
        measured("max_list_bytes", largest, largest_example),
        measured("max_below_floor", len(below_floor), below_floor),
        measured("max_below_k", len(below_k), [row[0] for row in below_k[:EXAMPLES]]),
    ]


def _current(settings: Settings, region: str) -> dict[str, Any] | None:
    rows = (row for row in ledger.latest(settings, region) if row["state"] == "current")
    return next(rows, None)


def _churn(settings: Settings, region: str, made: str, as_of: date) -> tuple[float, list[str]]:
    """Share of anchors with another best bundle than in the current release, and what differs; 0 where none is."""
    before = _current(settings, region)
    if before is None or before["release_id"] == made:
        return 0.0, []
    found = release_diff.between(settings, region, before, {"release_id": made, "as_of": as_of, "outputs": None})
    return found.churn, found.examples


def _emptied(settings: Settings, region: str, made: str, connection: Any) -> tuple[float, list[str]]:
    """Share of the current release's segments that have no list in this build, and their names; 0 where none is."""
    before = _current(settings, region)
    if before is None or before["release_id"] == made:
        return 0.0, []
    had = release_diff.segments(settings, region, before)
    rows = connection.execute(
        "SELECT DISTINCT segment FROM lists WHERE region = $region", {"region": region}
    ).fetchall()
    lost = sorted(had - {row[0] for row in rows})
    return len(lost) / max(len(had), 1), lost


def _largest_list(connection: Any, here: str) -> tuple[int, list[str]]:
    """Bytes of the largest list with its bundles as JSON, and the largest ones with their bytes."""
    rows = connection.sql(f"""
        WITH sizes AS (
            SELECT region, segment, bundle_id, strlen(to_json(components)) + strlen(bundle_id) AS bytes
            FROM built WHERE {here}),
        listed AS (
            SELECT region, segment, anchor, unnest(bundles).bundle_id AS bundle_id,
                   strlen(to_json(bundles)) / len(bundles) AS share
            FROM lists WHERE {here})
        SELECT sum(bytes + share)::BIGINT AS total, segment || ' of ' || anchor
        FROM listed JOIN sizes USING (region, segment, bundle_id) GROUP BY segment, anchor
        ORDER BY total DESC, 2 LIMIT {EXAMPLES}
    """).fetchall()
    return (rows[0][0] if rows else 0), [f"{name} with {size} bytes" for size, name in rows]


def _bundles_where(connection: Any, here: str, condition: str) -> tuple[int, list[str]]:
    """How many bundles have a component of which `condition` is true, and some of them with that component."""
    found = f"FROM parts WHERE {here} AND ({condition})"
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
