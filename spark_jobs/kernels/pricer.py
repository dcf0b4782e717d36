"""One region's bundles priced: from what is told about its products to discounts, floors and the reasons."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.kernels import discounts, products
from spark_jobs.kernels.discounts import Floats, Ints, Mask, Outcome, Sets, Terms
from spark_jobs.kernels.products import UNKNOWN, Products
from tandem.money import BPS
from tandem.regions import Region
from tandem.rules import Pricing
from tandem.segments import ALL

STEP_BPS = 50
"""Depths that are tried: multiples of half a percent."""


class Layout(NamedTuple):
    """Where each component stands: its bundle, its place in it, its product and how many of it."""

    owner: Ints
    place: Ints
    shape: tuple[int, int]
    number: Ints
    """-1 where the catalogue does not hold it."""
    quantity: Ints

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """`values`, one a component, as rows of bundles."""
        held = np.zeros(self.shape, values.dtype)
        held[self.owner, self.place] = values
        return held

    def of(self, values: NDArray[Any], missing: Any) -> NDArray[Any]:
        """Of each component what `values` says of its product."""
        if not len(values):
            return np.full(len(self.number), missing)
        return np.where(self.number >= 0, values[self.number], missing)

    def all_of(self, true: Mask) -> Mask:
        """Bundles of which `true` holds for every component."""
        return ~self.spread(~true).any(1)


def priced(bundles: pa.Table, told: pa.Table, region: Region, pricing: Pricing, window_days: int) -> pa.Table:
    """`bundles` (at least one row) with floors, discount, expected profit and why; `told` as `pricing.TOLD` says."""
    by_name = [("segment", "ascending"), ("bundle_id", "ascending")]
    bundles = bundles.take(pc.sort_indices(bundles, sort_keys=by_name)).combine_chunks()
    kinds = by_kind(told)
    known = known_products(kinds, pricing)
    layout = _layout(bundles["components"].chunk(0), known)
    sets, terms = _sets(bundles, layout, known, kinds, region), terms_of(pricing, region.currency)
    usable = layout.all_of(layout.of(known.price, UNKNOWN) != UNKNOWN)
    lawful = layout.all_of(~_above_lowest(layout, known, kinds["lowest"]))
    counted = sets.together > 0
    judged = _cleared(sets, layout, known, kinds, pricing) if pricing.strategy == "clear_stock" else sets
    bps = np.where(usable & lawful & counted, discounts.STRATEGIES[pricing.strategy](judged, terms), 0)
    outcome = discounts.outcome(sets, np.where(usable, _shown(sets, bps, terms), 0), terms)
    paid = _paid_for(bundles, bps, outcome, kinds["orders"], region.name, pricing, window_days)
    reason = np.select(
        [~usable, ~counted, ~lawful, (bps > 0) & ~paid, bps > 0],
        ["no_price", "no_counts", "above_lowest_price", "over_budget", "discounted"],
        _why_not(judged, terms, pricing),
    )
    bps = np.where(paid, bps, 0)
    known_costs = layout.all_of(layout.of(known.told, False))
    changed = {
        "components": _with_floors(bundles["components"].chunk(0), layout, known),
        "discount_bps": pa.array(bps.astype(np.int32)),
        "expected_profit_cents": pa.array(_profit(sets, bps), mask=~usable),
        "pricing": _told_why(pricing.strategy, reason, sets, outcome, usable, known_costs),
    }
    return pa.table([changed.get(name, bundles[name]) for name in bundles.column_names], names=bundles.column_names)


KINDS = ("product", "price", "lowest", "stock", "sold", "elasticity", "offered", "orders")


def terms_of(pricing: Pricing, currency: str) -> Terms:
    """The settings as the kernel takes them."""
    point = pricing.price_points.get(currency)
    return Terms(
        max_bps=pricing.max_discount_bps,
        step_bps=STEP_BPS,
        fixed_bps=pricing.fixed_discount_bps,
        probability=pricing.min_probability,
        switching=pricing.switching_bps / BPS,
        point_step=point.step if point else 1,
        point_ending=point.ending if point else 0,
    )


def by_kind(told: pa.Table) -> dict[str, pa.Table]:
    """What is told (`pricing.TOLD`), by its kind."""
    return {kind: told.filter(pc.equal(told["kind"], kind)).combine_chunks() for kind in KINDS}


def known_products(kinds: dict[str, pa.Table], pricing: Pricing) -> Products:
    """The region's products, by SKU; of a product told twice the first counts."""
    rows = kinds["product"].sort_by("sku")
    skus = rows["sku"].combine_chunks()
    prices = kinds["price"]
    place = pc.index_in(skus, prices["sku"].combine_chunks())
    return products.products(
        skus,
        rows["name"].to_pylist(),
        _whole(prices["a"].combine_chunks().take(place)),
        _whole(rows["a"]),
        _whole(rows["b"]),
        min_margin_bps=pricing.min_margin_bps,
        assumed_margin_bps=pricing.assumed_margin_bps,
        assumed_margins_bps=pricing.assumed_margins_bps,
    )


def _whole(values: pa.Array | pa.ChunkedArray) -> Ints:
    """Amounts, UNKNOWN where there is none."""
    filled = pa.chunked_array([values]) if isinstance(values, pa.Array) else values
    found: Ints = filled.fill_null(UNKNOWN).to_numpy()
    return found


def _layout(components: pa.ListArray, known: Products) -> Layout:
    sizes = components.value_lengths().to_numpy(zero_copy_only=False)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    parts = components.flatten()
    quantity = parts.field("quantity").to_numpy(zero_copy_only=False).astype(np.int64)
    return Layout(owner, place, (len(sizes), int(sizes.max())), known.numbers(parts.field("sku")), quantity)


def _sets(bundles: pa.Table, layout: Layout, known: Products, kinds: dict[str, pa.Table], region: Region) -> Sets:
    def money(values: Ints) -> Ints:
        return layout.spread(np.maximum(layout.of(values, 0), 0) * layout.quantity)

    elasticity, error = products.response(known.category, responses_of(kinds["elasticity"], region.name))
    together, lift = (
        pc.struct_field(bundles["evidence"], name).to_numpy().astype(np.float64) for name in ("orders_together", "lift")
    )
    further = np.maximum(layout.spread(np.ones(len(layout.owner))).sum(1) - 1, 1)
    return Sets(
        price=money(known.price),
        floor=money(known.floor),
        cost=money(known.cost).astype(np.float64),
        elasticity=layout.spread(layout.of(elasticity, 0.0)),
        error=layout.spread(layout.of(error, 0.0)),
        together=together,
        lift=lift ** (1 / further),
        holding=_holding(bundles, layout, together, kinds["offered"]),
    )


def responses_of(rows: pa.Table, region: str) -> dict[str, tuple[float, float]]:
    """Category to elasticity and error: the region's own, else that of all regions."""
    columns = (rows[name].to_pylist() for name in ("segment", "name", "x", "y"))
    found = sorted(zip(*columns, strict=True), key=lambda row: row[0] != ALL)
    return {name: (value, error) for _, name, value, error in found}


def _holding(bundles: pa.Table, layout: Layout, together: Floats, offered: pa.Table) -> Floats:
    """Orders that hold each component whose page offers the bundle: orders of the whole set over its confidence."""
    key = pc.binary_join_element_wise(bundles["segment"], bundles["bundle_id"], "\n").combine_chunks()
    rows = pc.index_in(pc.binary_join_element_wise(offered["segment"], offered["name"], "\n"), key)
    parts = bundles["components"].chunk(0).flatten().field("sku")
    places = _joined(rows.combine_chunks().fill_null(-1).cast(pa.string()), offered["sku"].combine_chunks())
    asked = _joined(pa.array(layout.owner).cast(pa.string()), parts)
    found = pc.index_in(asked, places)
    confidence = offered["x"].combine_chunks().take(found).fill_null(0.0).to_numpy(zero_copy_only=False)
    held = np.divide(together[layout.owner], confidence, out=np.zeros(len(confidence)), where=confidence > 0)
    return layout.spread(held)


def _joined(left: pa.Array, right: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(left, right, "\n")


def _above_lowest(layout: Layout, known: Products, lowest: pa.Table) -> Mask:
    """Components that cost more today than in the days that the law looks back on (region setting; none: False)."""
    least = np.full(len(known.skus) + 1, np.iinfo(np.int64).max)
    least[known.numbers(lowest["sku"])] = lowest["a"].to_numpy()
    return layout.of(known.price > least[:-1], False)


def _cleared(sets: Sets, layout: Layout, known: Products, kinds: dict[str, pa.Table], pricing: Pricing) -> Sets:
    """The sets at what their goods are worth to who has to clear stock."""
    on_hand, daily = (_by_product(known, kinds[kind]) for kind in ("stock", "sold"))
    cost = discounts.pressing(
        known.cost.astype(np.float64), on_hand, daily, pricing.clear_stock_days, pricing.salvage_bps / BPS
    )
    return sets._replace(cost=layout.spread(np.maximum(layout.of(cost, 0.0), 0) * layout.quantity))


def _by_product(known: Products, rows: pa.Table) -> Floats:
    values = np.zeros(len(known.skus) + 1)
    values[known.numbers(rows["sku"])] = rows["x"].to_numpy()
    return values[:-1]


def _shown(sets: Sets, bps: Ints, terms: Terms) -> Ints:
    """The discount whose outcome is told: the one given, else the least that was tried."""
    return np.where(bps > 0, bps, discounts.least(sets, discounts.depths(sets.total, terms)))


def _why_not(judged: Sets, terms: Terms, pricing: Pricing) -> NDArray[np.str_]:
    """Why each set would get no discount, if it gets none."""
    if pricing.strategy == "none":
        return np.full(len(judged.together), "strategy_none")
    tried = discounts.depths(judged.total, terms)
    least = discounts.outcome(judged, discounts.least(judged, tried), terms)
    return np.select([discounts.room(judged, tried) == 0, least.gain <= 0], ["at_floor", "no_gain"], "not_sure")


def _paid_for(
    bundles: pa.Table, bps: Ints, outcome: Outcome, orders: pa.Table, region: str, pricing: Pricing, window_days: int
) -> Mask:
    """Which discounts the region's daily budget pays for. Each list is counted whole, though a shopper sees but one."""
    budget = pricing.daily_budget.get(region)
    if budget is None:
        return np.ones(len(bps), bool)
    together = pc.struct_field(bundles["evidence"], "orders_together").to_numpy()
    daily = together * _share_of_level(bundles, orders, region) / window_days
    return discounts.within_budget(outcome.gain * daily, outcome.spend * daily * (bps > 0), budget)


def _share_of_level(bundles: pa.Table, orders: pa.Table, region: str) -> Floats:
    """Orders of each bundle's segment over those of the level its evidence comes from."""
    columns = (orders[name].to_pylist() for name in ("sku", "segment", "x"))
    counted = {(where, segment): count for where, segment, count in zip(*columns, strict=True)}
    here = sum(count for (where, _), count in counted.items() if where == region)
    everywhere = sum(counted.values())
    segments = bundles["segment"].to_pylist()
    levels = pc.struct_field(bundles["evidence"], "matched").to_pylist()
    own = np.array([here if segment == ALL else counted.get((region, segment), 0.0) for segment in segments])
    whole = np.array([{"region": here, "global": everywhere}.get(level, 0.0) for level in levels])
    return np.divide(own, whole, out=np.ones(len(own)), where=whole > 0)


def _profit(sets: Sets, bps: Ints) -> Floats:
    margin: Floats = np.round(sets.total * (BPS - bps) / BPS - sets.cost.sum(1), 2)
    return margin


def _told_why(
    strategy: str, reason: NDArray[np.str_], sets: Sets, outcome: Outcome, usable: Mask, known_cost: Mask
) -> pa.StructArray:
    elasticity = (sets.price * sets.elasticity).sum(1) / np.maximum(sets.total, 1)

    def where_usable(values: NDArray[Any]) -> pa.Array:
        return pa.array(values, mask=~usable)

    columns = {
        "strategy": pa.array([strategy] * len(reason), pa.string()),
        "reason": pa.array(reason.tolist(), pa.string()),
        "list_total_cents": where_usable(sets.total),
        "cost_cents": where_usable(sets.cost.sum(1).astype(np.int64)),
        "cost_basis": pa.array(np.where(known_cost, "known", "assumed").tolist(), pa.string()),
        "elasticity": where_usable(elasticity),
        "probability_better": where_usable(outcome.probability),
        "expected_gain_cents": where_usable(outcome.gain),
        "expected_spend_cents": where_usable(outcome.spend),
        "expected_won": where_usable(outcome.won),
    }
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def _with_floors(components: pa.ListArray, layout: Layout, known: Products) -> pa.ListArray:
    """The components, and what may stand in for them, with the floors of one unit."""
    parts = components.flatten()
    others = parts.field("substitutes")
    stands_in = others.flatten()
    floored = pa.StructArray.from_arrays(
        [stands_in.field("sku"), _floors(known, known.numbers(stands_in.field("sku")))], names=["sku", "floor_cents"]
    )
    starts = _offsets(others.value_lengths())
    kept = [parts.field("sku"), parts.field("quantity"), _floors(known, layout.number)]
    filled = pa.StructArray.from_arrays(
        [*kept, pa.ListArray.from_arrays(starts, floored)], names=["sku", "quantity", "floor_cents", "substitutes"]
    )
    return pa.ListArray.from_arrays(_offsets(components.value_lengths()), filled)


def _offsets(lengths: pa.Array) -> pa.Array:
    return pa.array(
        np.concatenate(([0], np.cumsum(lengths.fill_null(0).to_numpy(zero_copy_only=False)))).astype(np.int32)
    )


def _floors(known: Products, number: Ints) -> pa.Array:
    floor = np.append(known.floor, UNKNOWN)[number]
    return pa.array(floor, mask=floor == UNKNOWN)
