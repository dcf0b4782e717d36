"""Every Delta table, declared once, without any engine. Spark's, Arrow's and Delta's schemas are made from here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Struct:
    """A nested row."""

    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Array:
    """A list of values that are never null."""

    of: Type


Type = Literal["string", "integer", "long", "double", "boolean", "date", "timestamp", "decimal(12,3)"] | Struct | Array
"""Delta's own names of its types, and nests of them. Timestamps are UTC."""


@dataclass(frozen=True)
class Column:
    name: str
    type: Type
    comment: str
    """What it means, with its unit."""
    required: bool = True


@dataclass(frozen=True)
class Table:
    name: str
    grain: str
    """One row per what."""
    columns: tuple[Column, ...]
    partitions: tuple[str, ...] = ()
    constraints: Mapping[str, str] = field(default_factory=dict)
    """Name to SQL; every row must satisfy it (Delta CHECK constraints)."""
    retention: str = "kept"
    personal: str = "none"
    """Which columns are personal data, and how they are protected."""

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def schema(self) -> dict[str, Any]:
        """The schema as Delta's protocol writes it, which is also Spark's `StructType.jsonValue()`."""
        return {"type": "struct", "fields": [_column(column) for column in self.columns]}

    def schema_json(self) -> str:
        return json.dumps(self.schema())


def _type(kind: Type) -> str | dict[str, Any]:
    if isinstance(kind, Array):
        return {"type": "array", "elementType": _type(kind.of), "containsNull": True}
    if isinstance(kind, Struct):
        return {"type": "struct", "fields": [_column(column, nested=True) for column in kind.columns]}
    return kind


def _column(column: Column, *, nested: bool = False) -> dict[str, Any]:
    # Delta enforces NOT NULL on columns only, not inside arrays and rows.
    return {
        "name": column.name,
        "type": _type(column.type),
        "nullable": nested or not column.required,
        "metadata": {"comment": column.comment},
    }


def _optional(name: str, kind: Type, comment: str) -> Column:
    return Column(name, kind, comment, required=False)


_REGION = Column("region", "string", "Region by its name in regions.toml; `*` is all regions together")
_FACT_REGION = Column("region", "string", "Region by its name in regions.toml")
_SEGMENT = Column("segment", "string", "Segment by its name in segments.toml; `*` is the whole region")
_AS_OF = Column("as_of", "date", "Business day: learned only from orders before it (UTC)")
_SKU = Column("sku", "string", "Product, as the shop writes it, trimmed")
_CURRENCY = Column("currency", "string", "ISO 4217")
_SOURCE = Column("source", "string", "What it was read from: the file's name, or `completejourney`")

SALES_LINES = Table(
    name="sales_lines",
    grain="line of an order, as brought",
    columns=(
        _FACT_REGION,
        Column("month", "string", "Month of ordered_at, UTC, YYYY-MM"),
        Column("order_id", "string", "Order (basket, receipt), unique within the region"),
        Column("line", "integer", "Number of the line within its order, from 1, in the source's order"),
        Column("ordered_at", "timestamp", "When it was bought, UTC"),
        _SKU,
        Column("quantity", "decimal(12,3)", "Units; negative for a return or cancellation"),
        Column("unit_price_cents", "long", "Price of one unit as paid, minor units"),
        Column("net_cents", "long", "What the line brought: quantity times unit price as paid, minor units"),
        _optional("list_price_cents", "long", "Price of one unit before any discount, minor units; null if unknown"),
        _CURRENCY,
        _optional("customer_id", "string", "Customer, pseudonymous as brought; null for anonymous orders"),
        _SOURCE,
    ),
    partitions=("region", "month"),
    constraints={"month_of_order": "month LIKE '____-__'", "line_from_one": "line >= 1"},
    personal="customer_id (pseudonymous)",
)

PRODUCTS = Table(
    name="products",
    grain="product",
    columns=(
        _SKU,
        Column("title", "string", "What a shopper reads; the SKU where none was brought"),
        _optional("brand", "string", "Brand"),
        _optional("category", "string", "Path of categories, levels split by ` > `, coarse to fine"),
        _optional("unit_cost_cents", "long", "What one unit costs the shop, minor units; null if unknown. Inside only"),
        _optional(
            "minimum_advertised_price_cents", "long", "Lowest price that may be shown, minor units; null if none"
        ),
        _optional("currency", "string", "ISO 4217, of cost and minimum; null if both are unknown"),
        _optional("image_url", "string", "Picture"),
        Column("active", "boolean", "False: never offered"),
        _SOURCE,
    ),
    constraints={"cost_not_negative": "unit_cost_cents IS NULL OR unit_cost_cents >= 0"},
)

PRICES = Table(
    name="prices",
    grain="region × product",
    columns=(
        _FACT_REGION,
        _SKU,
        Column("list_price_cents", "long", "Regular price of one unit, minor units"),
        _optional("sale_price_cents", "long", "Reduced price of one unit, minor units; null if not reduced"),
        _CURRENCY,
        Column("prices_as_of", "timestamp", "When these prices held, UTC"),
        _SOURCE,
    ),
    partitions=("region",),
    constraints={"list_price_positive": "list_price_cents > 0"},
)

STOCK = Table(
    name="stock",
    grain="region × product",
    columns=(
        _FACT_REGION,
        _SKU,
        Column("on_hand", "long", "Units that can be sold"),
        Column("stock_as_of", "timestamp", "When this was counted, UTC"),
        _SOURCE,
    ),
    partitions=("region",),
    constraints={"on_hand_not_negative": "on_hand >= 0"},
)

CUSTOMERS = Table(
    name="customers",
    grain="customer",
    columns=(
        Column("customer_id", "string", "Customer, pseudonymous as brought"),
        _optional("region", "string", "Home region; null: where most orders are"),
        Column("consents", Array("string"), "Purposes the customer consented to"),
        Column(
            "attributes",
            Array(Struct((Column("name", "string", "Column of the source"), Column("value", "string", "Its text")))),
            "Every further column of the customers file, for segments",
        ),
        _SOURCE,
    ),
    personal="customer_id (pseudonymous), attributes",
)

REJECTED_ROWS = Table(
    name="rejected_rows",
    grain="row that an import could not use",
    columns=(
        Column("file", "string", "Which kind of file: orders, catalog, prices, stock, customers"),
        _SOURCE,
        Column("row", "long", "Number of the row in the source, from 1, the header not counted"),
        Column("reason", "string", "Why, a short fixed code"),
        Column("detail", "string", "The field and what is wrong with it"),
        Column("text", "string", "The row as read"),
    ),
    partitions=("file",),
    retention="replaced by the next import of the same source",
    personal="text may hold a customer_id",
)

SEGMENT_MEMBERS = Table(
    name="segment_members",
    grain="as_of × region × segment × customer",
    columns=(
        _AS_OF,
        _FACT_REGION,
        Column("segment", "string", "Segment: learned, by its name in segments.toml, or `everyone`"),
        Column("customer_id", "string", "Customer, pseudonymous as brought"),
        Column("recency_days", "integer", "Days from the last order to as_of"),
        Column("frequency", "long", "Orders in the window"),
        Column("spend_cents", "long", "Net spend in the window, minor units"),
    ),
    partitions=("as_of", "region"),
    personal="customer_id (pseudonymous)",
)

SEGMENT_MODELS = Table(
    name="segment_models",
    grain="as_of × learned segment × slice × feature",
    columns=(
        _AS_OF,
        Column("segment", "string", "The segment's name, kept from build to build"),
        Column("slice", "string", "Learned from: whole, the window; judged and tuned, its first 80 and 64 % of days"),
        Column("title", "string", "What its customers buy more of than others, most telling first"),
        Column("feature", "string", "Product (SKU) or category that customers are compared by"),
        Column("centre", "double", "Mean over the segment's customers of the square root of the feature's share"),
        Column("customers", "long", "Customers that the centre was learned from"),
        _optional("predecessor", "date", "The earlier build whose names and members it goes on from; null if none"),
        Column("inputs", "string", "JSON: Delta version of each fact table that was read, and the settings"),
    ),
    partitions=("as_of",),
)

_HITS = {
    "hit_everyone": "hit@5 of everyone's list for these customers, their own orders left out",
    "hit_segment": "hit@5 of the segment's list",
    "hit_placebo": "hit@5 of a segment of the same size with shuffled customers",
    "gain": "hit_segment - hit_everyone, on the same queries",
    "placebo_gain": "hit_segment - hit_placebo, on the same queries",
}

SEGMENT_DECISIONS = Table(
    name="segment_decisions",
    grain="as_of × region × segment × kind",
    columns=(
        _AS_OF,
        _REGION,
        Column("segment", "string", "Segment; `*` is all of the kind together"),
        Column("kind", "string", "learned; predicate; or policy: published by an earlier slice, judged on a later"),
        Column("customers", "long", "Customers asked about"),
        Column("queries", "long", "Anchors in their later orders"),
        *[
            column
            for name, meaning in _HITS.items()
            for column in (
                Column(name, "double", meaning),
                Column(f"{name}_low", "double", "Lower end of its 95 % interval, bootstrap by customer"),
                Column(f"{name}_high", "double", "Upper end of its 95 % interval"),
            )
        ],
        Column("weight", "double", "Orders that everyone's ranking weighs in the segment's; learned earlier"),
        Column("tilt", "double", "Power of the segment's own popularity in it, 0 to 1; learned earlier"),
        Column("helps", "boolean", "Both gains are sure, at a level that allows for the number of segments"),
        Column("published", "boolean", "It has lists of its own: it helps, or segments.toml says so"),
        Column("learned_before", "date", "Learned from orders before this day; asked about orders from it up to as_of"),
    ),
    partitions=("as_of",),
)

AFFINITY = Table(
    name="affinity",
    grain="as_of × region × segment × anchor × companion",
    columns=(
        _AS_OF,
        _REGION,
        _SEGMENT,
        Column("anchor", "string", "The product looked at (SKU)"),
        Column("companion", "string", "The product offered with it (SKU)"),
        Column("orders_total", "long", "Orders counted in this region and segment"),
        Column("orders_anchor", "long", "Orders that hold the anchor"),
        Column("orders_companion", "long", "Orders that hold the companion"),
        Column("orders_both", "long", "Orders that hold both"),
        Column("customers_both", "long", "Distinct customers with an order that holds both; at least the region's k"),
        Column("orders_anchor_first", "long", "Of orders_both, those whose anchor has the earlier time"),
        Column("orders_companion_first", "long", "Of orders_both, those whose companion has the earlier time"),
        Column("decayed_total", "double", "orders_total, each order halved per half_life_days (rules.toml) of its age"),
        Column("decayed_anchor", "double", "orders_anchor, decayed"),
        Column("decayed_companion", "double", "orders_companion, decayed"),
        Column("decayed_both", "double", "orders_both, decayed"),
        Column("support", "double", "orders_both / orders_total"),
        Column("confidence", "double", "orders_both / orders_anchor"),
        Column("lift", "double", "confidence / (orders_companion / orders_total)"),
        Column("npmi", "double", "Normalised pointwise mutual information, -1 to 1"),
        Column("llr", "double", "Log-likelihood ratio (G²) of the 2 × 2 table, not negative"),
        Column("score", "double", "What the rank is by: orders_both / (orders_anchor · orders_companion^damping)"),
        Column("rank", "integer", "Place among the anchor's companions by score, from 1"),
    ),
    partitions=("as_of", "region"),
    constraints={"both_within_anchor": "orders_both <= orders_anchor", "rank_from_one": "rank >= 1"},
)

RANKINGS = Table(
    name="rankings",
    grain="as_of × region × segment × anchor × companion",
    columns=(
        _AS_OF,
        _REGION,
        _SEGMENT,
        Column("anchor", "string", "The product looked at (SKU)"),
        Column("companion", "string", "The product offered with it (SKU)"),
        Column("rank", "integer", "Place among the anchor's companions, from 1; the first five are chosen together"),
        Column("score", "double", "Probability times what a hit is worth under rules.toml's objective and tail_weight"),
        Column("probability", "double", "Estimated probability that an order with the anchor holds the companion"),
        Column("customers_both", "long", "Distinct customers who bought both; below the region's k: never published"),
        Column("matched", "string", "Finest evidence: segment, region, global, category, content or popular"),
        Column("why", Array("string"), "The evidence, as name=figure: orders_together=37, confidence=0.21"),
    ),
    partitions=("as_of", "region"),
    constraints={"rank_from_one": "rank >= 1"},
)

RANKING_MODELS = Table(
    name="ranking_models",
    grain="as_of on which a model of the ranker was learned",
    columns=(
        _AS_OF,
        Column("model", "string", "XGBoost's UBJSON in Base64; empty: smoothed confidence did as well"),
        Column("orders", "long", "Orders in the window that it was learned in"),
        Column("fingerprint", "string", "Of orders, catalogue and code: the same give the same model"),
    ),
    partitions=("as_of",),
)

NEIGHBOURS = Table(
    name="neighbours",
    grain="as_of × product × neighbour",
    columns=(
        _AS_OF,
        _SKU,
        Column("neighbour", "string", "Product whose buyers are alike (SKU)"),
        Column("similarity", "double", "Cosine of the two products' factors, -1 to 1"),
        Column("same_category", "boolean", "Both have the same finest category"),
        Column("rank", "integer", "Place by similarity within same_category, from 1"),
    ),
    partitions=("as_of",),
)

ELASTICITIES = Table(
    name="elasticities",
    grain="as_of × region × category",
    columns=(
        _AS_OF,
        _REGION,
        Column("category", "string", "Path of categories as in products; `*` is the whole shop, empty: no category"),
        Column("elasticity", "double", "Relative change in units over that in price: at -2, 1 % less sells 2 % more"),
        Column("low", "double", "Lower end of its 95 % interval"),
        Column("high", "double", "Upper end of its 95 % interval"),
        _optional("own_elasticity", "double", "What the category's own history says alone; null if it is too short"),
        _optional("own_error", "double", "Standard error of own_elasticity"),
        Column("products", "long", "Products whose price changed and that sold often enough to tell"),
        Column("weeks", "long", "Weeks of those products, those without a sale included"),
        Column("units", "double", "Units of those products sold in them"),
        Column(
            "shrunk_from",
            "string",
            "What it is drawn to: the category above, the same one in all regions, or `literature`",
        ),
        Column("reasonable", "boolean", "Negative and not beyond -10"),
    ),
    partitions=("as_of",),
    constraints={"ordered": "low <= elasticity AND elasticity <= high"},
)

SUBSTITUTES = Table(
    name="substitutes",
    grain="as_of × product × substitute",
    columns=(
        _AS_OF,
        _SKU,
        Column("substitute", "string", "Product of the same need that may stand in (SKU)"),
        Column("similarity", "double", "Cosine of what is written of the two: title, brand, category, price; 0 to 1"),
        Column("swaps", "long", "Orders with the substitute whose customer had taken the product last time"),
        Column("customers", "long", "Distinct customers who swapped; swaps of fewer than k of them count as none"),
        Column("together", "long", "Orders that hold both"),
        Column("expected", "double", "Orders that would hold both, had each customer's purchases fallen by chance"),
        Column("apart", "boolean", "Rarely in one order (together <= expected): never a companion"),
        Column("score", "double", "Share of the product's replacements that it is thought to be, 0 to 1"),
        Column("rank", "integer", "Place by score, from 1"),
    ),
    partitions=("as_of",),
    constraints={"rank_from_one": "rank >= 1"},
)

_EVIDENCE = Struct(
    (
        Column(
            "matched", "string", "Level that supports it: segment, region, global; category, content or popular; none"
        ),
        Column(
            "basis",
            "string",
            "counts; factors where counts are thin and they agree; rule where it is asked for; else the level",
        ),
        Column(
            "orders_together",
            "long",
            "Orders at that level that hold all components; 0 where other products or popularity answer",
        ),
        Column(
            "customers_together",
            "long",
            "Distinct customers of those orders, or of the companion at that level; at least k, or 0 by a rule alone",
        ),
        Column(
            "lift",
            "double",
            "Orders together over what chance would give, at that level; an estimate where orders are 0",
        ),
    )
)

_PRICING = Struct(
    (
        Column("strategy", "string", "The strategy in rules.toml: none, fixed, profit or clear_stock"),
        Column(
            "reason",
            "string",
            "discounted, or why not: strategy_none, no_price, no_counts (no order held the set), above_lowest_price, "
            "at_floor, no_gain, not_sure, over_budget",
        ),
        _optional("list_total_cents", "long", "Sum of the components' prices at the build, minor units"),
        _optional("cost_cents", "long", "Sum of their unit costs, minor units. Inside only"),
        Column("cost_basis", "string", "known: every unit cost was brought; assumed: one or more come from rules.toml"),
        _optional("elasticity", "double", "Elasticity of the bundle: its components', weighted by price"),
        _optional("probability_better", "double", "That this discount earns more than none"),
        _optional(
            "expected_gain_cents",
            "double",
            "Profit this discount is expected to add, minor units, per order that would hold the whole set without it",
        ),
        _optional("expected_spend_cents", "double", "Discount it is expected to give away, per the same"),
        _optional("expected_won", "double", "Further sets it is expected to sell, per the same"),
    )
)

BUNDLES = Table(
    name="bundles",
    grain="as_of × region × segment × bundle",
    columns=(
        _AS_OF,
        _FACT_REGION,
        _SEGMENT,
        Column("bundle_id", "string", "From the components alone: the same set has the same id everywhere"),
        Column("release_id", "string", "The release this build makes"),
        _CURRENCY,
        Column(
            "components",
            Array(
                Struct(
                    (
                        _SKU,
                        Column("quantity", "integer", "Units in the bundle"),
                        _optional("floor_cents", "long", "Lowest price of one unit, minor units. Inside only"),
                        Column(
                            "substitutes",
                            Array(
                                Struct(
                                    (
                                        _SKU,
                                        _optional("floor_cents", "long", "Lowest price of one unit, minor units"),
                                    )
                                )
                            ),
                            "Products of the same category that may stand in, best first",
                        ),
                    )
                )
            ),
            "What the bundle holds, by SKU",
        ),
        Column("discount_bps", "integer", "Discount on the sum of the prices, basis points"),
        Column(
            "score",
            "double",
            "How good the bundle is among all: attach rate at each of its products, times lift per companion ^ 0.3",
        ),
        _optional(
            "expected_profit_cents",
            "double",
            "Margin of one bundle sold: prices less this discount less unit costs (known or assumed), minor units; "
            "null if a price is missing",
        ),
        _optional(
            "pricing",
            _PRICING,
            "Why this discount; without one, the last four say what the least discount would have done",
        ),
        Column("evidence", _EVIDENCE, "What it rests on"),
        _optional(
            "rules",
            Array(
                Struct(
                    (
                        Column("line", "integer", "Where the rule begins in rules.toml"),
                        Column("action", "string", "pin, boost, bury or always_with"),
                    )
                )
            ),
            "Rules that put it first, moved it, or asked for a product in it; what a rule forbids is not there",
        ),
        Column("inputs", "string", "JSON: Delta version of each fact table that was read"),
    ),
    partitions=("as_of", "region"),
    constraints={"discount_in_range": "discount_bps >= 0 AND discount_bps < 10000"},
)

BUNDLE_SETS = Table(
    name="bundle_sets",
    grain="as_of × region × segment × anchor",
    columns=(
        _AS_OF,
        _FACT_REGION,
        _SEGMENT,
        Column("anchor", "string", "The product looked at (SKU)"),
        Column("release_id", "string", "The release this build makes"),
        Column(
            "bundles",
            Array(
                Struct(
                    (
                        Column("bundle_id", "string", "A bundle of this as_of, region and segment"),
                        Column(
                            "confidence",
                            "double",
                            "Share of the anchor's orders that hold the whole bundle, counted or estimated",
                        ),
                        Column(
                            "matched",
                            "string",
                            "Level of the evidence: segment, region, global; category, content or popular; none",
                        ),
                    )
                )
            ),
            "Best first",
        ),
    ),
    partitions=("as_of", "region"),
)

EVALUATIONS = Table(
    name="evaluations",
    grain="as_of × region × segment × metric",
    columns=(
        _AS_OF,
        _REGION,
        _SEGMENT,
        Column("metric", "string", "What was measured, with the ranking: `hit@5/score`"),
        Column("value", "double", "The measure"),
        Column("low", "double", "Lower end of the 95 % interval, bootstrap by customer"),
        Column("high", "double", "Upper end of the 95 % interval"),
        Column("queries", "long", "Anchors in baskets that were tested"),
        Column("learned_before", "date", "Learned from orders before this day; tested on orders from it up to as_of"),
    ),
    partitions=("as_of",),
)

RELEASES = Table(
    name="releases",
    grain="region × release × transition",
    columns=(
        _FACT_REGION,
        Column("release_id", "string", "The release"),
        Column(
            "state",
            "string",
            "approved, degraded, staged, sealed, canary, held, current, backup, retired or quarantined",
        ),
        Column("at", "timestamp", "When it went to this state, UTC"),
        Column("by", "string", "User and machine that did it"),
        Column("reason", "string", "Why"),
        _AS_OF,
        _optional("anchors", "long", "Anchor lists counted at sealing"),
        _optional("bundles", "long", "Bundles counted at sealing"),
        _optional("checksum", "string", "Order-free checksum over all entries, 16 hexadecimal digits"),
        _optional("shards", "long", "Files on the CDN"),
        _optional("inputs", "string", "JSON: Delta version of each table that it came from"),
        Column("code_version", "string", "Tandem's version"),
        _optional("outputs", "string", "JSON: Delta version of each table that a build writes, when it was staged"),
        _optional("fence", "long", "Number of the publisher's lease; an older one writes nothing after a newer one"),
    ),
    partitions=("region",),
    retention="kept: the record of what shoppers could see",
)

EXPOSURES = Table(
    name="exposures",
    grain="event: bundles shown",
    columns=(
        _FACT_REGION,
        Column("day", "date", "Day of at, UTC"),
        Column("event_id", "string", "Given by the sender; an event told twice counts once"),
        Column("at", "timestamp", "When it was shown, UTC"),
        Column("release_id", "string", "Release that the answer came from"),
        _SEGMENT,
        Column("anchor", "string", "The product looked at (SKU)"),
        Column("bundle_ids", Array("string"), "Bundles shown, in order"),
        _optional("session_id", "string", "Session, where the shopper consented"),
    ),
    partitions=("region", "day"),
    personal="session_id, only with consent",
)

OUTCOMES = Table(
    name="outcomes",
    grain="event: a bundle clicked, put in the cart or bought",
    columns=(
        _FACT_REGION,
        Column("day", "date", "Day of at, UTC"),
        Column("event_id", "string", "Given by the sender; an event told twice counts once"),
        Column("at", "timestamp", "When it happened, UTC"),
        Column("kind", "string", "click, cart or purchase"),
        Column("release_id", "string", "Release that the answer came from"),
        Column("bundle_id", "string", "The bundle"),
        _optional("anchor", "string", "The product looked at (SKU)"),
        _optional("offer_total_cents", "long", "Price of the bundle then, minor units"),
        _optional("session_id", "string", "Session, where the shopper consented"),
    ),
    partitions=("region", "day"),
    constraints={"known_kind": "kind IN ('click', 'cart', 'purchase')"},
    personal="session_id, only with consent",
)

ACTIVITY = Table(
    name="activity",
    grain="event: a product looked at, put in the cart or bought by itself",
    columns=(
        _FACT_REGION,
        Column("day", "date", "Day of at, UTC"),
        Column("event_id", "string", "Given by the sender; an event told twice counts once"),
        Column("at", "timestamp", "When it happened, UTC"),
        Column("kind", "string", "view, click, cart, purchase; others may come"),
        _SKU,
        Column("quantity", "long", "Units"),
        _optional("session_id", "string", "Session, where the shopper consented"),
    ),
    partitions=("region", "day"),
    personal="session_id, only with consent",
)

LIVE_CANDIDATES = Table(
    name="live_candidates",
    grain="computed_at × region × anchor × companion",
    columns=(
        _FACT_REGION,
        Column("day", "date", "Day of computed_at, UTC"),
        Column("computed_at", "timestamp", "When it was made from the last minutes' signals, UTC"),
        Column("expires_at", "timestamp", "No edge offers it from then on, UTC"),
        Column("anchor", "string", "The product looked at (SKU)"),
        Column("companion", "string", "The product offered with it (SKU)"),
        Column("rank", "integer", "Place among the anchor's candidates, from 1"),
        Column("kind", "string", "together: had by the same shoppers just now; trending: the companion takes off"),
        Column("actors", "long", "Distinct shoppers it rests on; at least the region's k"),
        Column("orders_together", "long", "Orders that hold both, as the last build counted; 0 where it knew none"),
        Column("confidence", "double", "Share of the anchor's shoppers who have the companion too, estimated"),
        Column("lift", "double", "confidence over what chance would give; the last build's where it knew the pair"),
        Column("surge", "double", "Signals for the companion over those that its share of orders would give"),
        _optional("anchor_floor_cents", "long", "Lowest unit price of the anchor, minor units. Inside only"),
        _optional("companion_floor_cents", "long", "Lowest unit price of the companion, minor units. Inside only"),
        Column("as_of", "date", "The build whose affinity was joined"),
    ),
    partitions=("region", "day"),
    constraints={"rank_from_one": "rank >= 1", "known_kind": "kind IN ('together', 'trending')"},
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        SALES_LINES,
        PRODUCTS,
        PRICES,
        STOCK,
        CUSTOMERS,
        REJECTED_ROWS,
        SEGMENT_MEMBERS,
        SEGMENT_MODELS,
        SEGMENT_DECISIONS,
        AFFINITY,
        RANKINGS,
        RANKING_MODELS,
        NEIGHBOURS,
        SUBSTITUTES,
        ELASTICITIES,
        BUNDLES,
        BUNDLE_SETS,
        EVALUATIONS,
        RELEASES,
        EXPOSURES,
        OUTCOMES,
        ACTIVITY,
        LIVE_CANDIDATES,
    )
}
"""All tables by name, facts first."""

INPUTS = ("sales_lines", "products", "prices", "stock", "customers")
"""The tables a build reads that it does not write: a release's id comes from their versions."""

EVENTS = ("exposures", "outcomes", "activity")
"""What shoppers saw and did, as it came."""

NAMED = tuple(name for name in TABLES if name not in ("rejected_rows", "releases", "live_candidates", *EVENTS))
"""Tables whose versions the ledger names for a release: what a build reads, and what it writes."""

FREED = tuple(name for name in TABLES if name != "releases")
"""Tables that leave files behind which nothing needs any more: all but the ledger."""

BUILT = tuple(name for name in NAMED if name not in INPUTS)
"""What a build writes."""


def markdown() -> str:
    """All declarations as the page `docs/tables.md`."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Tables\n\n<!-- Made from warehouse/tables.py by `tandem tables --markdown`; do not edit. -->"
    for table in TABLES.values():
        yield f"\n## {table.name}\n\nOne row per {table.grain}.\n"
        yield f"- Partitioned by: {', '.join(table.partitions) or 'nothing'}"
        yield f"- Retention: {table.retention}"
        yield f"- Personal data: {table.personal}"
        for name, sql in table.constraints.items():
            yield f"- Constraint `{name}`: `{sql}`"
        yield "\n| column | type | required | meaning |\n|---|---|---|---|"
        yield from _rows(table.columns, "")


def _rows(columns: tuple[Column, ...], prefix: str) -> Iterator[str]:
    for column in columns:
        kind, inner = column.type, None
        if isinstance(kind, Array):
            inner = kind.of if isinstance(kind.of, Struct) else None
            shown = "array of rows" if inner else f"array of {kind.of}"
        else:
            inner = kind if isinstance(kind, Struct) else None
            shown = "row" if inner else str(kind)
        yield f"| `{prefix}{column.name}` | {shown} | {'yes' if column.required else 'no'} | {column.comment} |"
        if inner:
            yield from _rows(inner.columns, f"{prefix}{column.name}.")
