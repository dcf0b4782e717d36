"""What the tables hold of a window: its lists, and its bundles with components, substitutes and evidence."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.lawful import complete, may_meet
from spark_jobs.kernels.offering import BY_RULE, LEVELS, Offers, Pool, Window, lift, meant, worth
from spark_jobs.kernels.sets import ABSENT
from spark_jobs.kernels.shop import Held, Mask, Shop
from tandem.rules import Rules

_SUBSTITUTE = pa.struct([("sku", pa.string()), ("floor_cents", pa.int64())])
COMPONENT = pa.struct(
    [
        ("sku", pa.string()),
        ("quantity", pa.int32()),
        ("floor_cents", pa.int64()),
        ("substitutes", pa.list_(_SUBSTITUTE)),
    ]
)
EVIDENCE = pa.struct(
    [
        ("matched", pa.string()),
        ("basis", pa.string()),
        ("orders_together", pa.int64()),
        ("customers_together", pa.int64()),
        ("lift", pa.float64()),
    ]
)
SHAPED = pa.struct([("line", pa.int32()), ("action", pa.string())])
LISTED = pa.struct([("bundle_id", pa.string()), ("confidence", pa.float64()), ("matched", pa.string())])
ROWS = pa.schema(
    [
        ("region", pa.string()),
        ("segment", pa.string()),
        ("anchor", pa.string()),
        ("bundles", pa.list_(LISTED)),
        ("bundle_id", pa.string()),
        ("components", pa.list_(COMPONENT)),
        ("score", pa.float64()),
        ("evidence", EVIDENCE),
        ("rules", pa.list_(SHAPED)),
    ]
)
"""What a window puts into the tables: rows with an anchor are lists (`bundle_sets`), rows without are `bundles`."""
SHAPING = ("pin", "boost", "bury", "always_with")
"""What rules do to bundles that are there; the others keep bundles away."""


def rows(found: Offers, shop: Shop, rules: Rules, window: Window) -> pa.Table:
    """The window's lists and its bundles, rows of ROWS: lists by anchor, then bundles by id."""
    parts = (_lists(found, shop), _bundles(found, shop, rules, window))
    return pa.concat_tables([as_rows(part, window) for part in parts])


def as_rows(part: pa.Table, window: Window) -> pa.Table:
    """`part` with all columns of ROWS."""
    here = {"region": window.region, "segment": window.segment}
    columns = [
        part[field.name].cast(field.type)
        if field.name in part.column_names
        else pa.repeat(pa.scalar(here.get(field.name), field.type), len(part))
        for field in ROWS
    ]
    return pa.table(columns, schema=ROWS)


def _matched(level: Ints) -> pa.Array:
    return pa.array((*LEVELS, "none"), pa.string()).take(pa.array(level))


def _lists(found: Offers, shop: Shop) -> pa.Table:
    anchors, firsts = np.unique(found.anchor, return_index=True)
    entries = pa.StructArray.from_arrays(
        [
            found.pool.ids.take(pa.array(found.bundle)),
            pa.array(found.confidence),
            _matched(found.pool.level[found.bundle]),
        ],
        fields=list(LISTED),
    )
    ends = pa.array(np.append(firsts, len(found.anchor)).astype(np.int32))
    return pa.table({"anchor": shop.skus.take(pa.array(anchors)), "bundles": pa.ListArray.from_arrays(ends, entries)})


def _bundles(found: Offers, shop: Shop, rules: Rules, window: Window) -> pa.Table:
    listed = np.unique(found.bundle)
    return pa.table(
        {
            "bundle_id": found.pool.ids.take(pa.array(listed)),
            "components": components(found.pool.items[listed], shop, rules, window),
            "score": pa.array(worth(found.pool)[listed]),
            "evidence": _evidence(found.pool, listed, rules.learning.min_orders_together),
            "rules": shaped(found.pool.items[listed], shop, window),
        }
    )


def _evidence(pool: Pool, listed: NDArray[np.int64], enough: int) -> pa.Array:
    """What each bundle's level says; nothing where rules alone ask for it, for that would tell of fewer than k."""
    level = pool.level[listed]
    by_rule = level == BY_RULE
    told = np.minimum(level, len(LEVELS) - 1)
    together = np.where(by_rule, 0, pool.together[told, listed])
    customers = np.where(by_rule, 0, pool.customers[told, listed])
    basis = np.where(by_rule, 2, np.where(together < enough, 1, 0))
    return pa.StructArray.from_arrays(
        [
            _matched(level),
            pa.array(("counts", "factors", "rule"), pa.string()).take(pa.array(basis)),
            pa.array(together),
            pa.array(customers),
            pa.array(lift(pool, listed)),
        ],
        fields=list(EVIDENCE),
    )


def shaped(items: Ints, shop: Shop, window: Window) -> pa.ListArray:
    """Of each bundle the rules of the window that put it first, moved it, or asked for a product in it."""
    row, line, action = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], []
    for place, rule in enumerate(shop.held):
        if rule.rule.action in SHAPING and rule.covers(window.region, window.segment):
            touched = np.flatnonzero(_pinned(items, shop, place) if rule.rule.action == "pin" else meant(items, rule))
            row.append(touched)
            line.append(np.full(len(touched), rule.line, np.int32))
            action += [rule.rule.action] * len(touched)
    owner = np.concatenate(row)
    order = np.argsort(owner, kind="stable")
    told = pa.StructArray.from_arrays(
        [pa.array(np.concatenate(line)), pa.array(action, pa.string())], fields=list(SHAPED)
    )
    ends = np.append(0, np.cumsum(np.bincount(owner, minlength=len(items)))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), told.take(pa.array(order)))


def _pinned(items: Ints, shop: Shop, rule: int) -> Mask:
    """Whether each bundle is one that the rule pins."""
    asked = {tuple(sorted(shop.numbers(pa.array(pin.skus)).tolist())) for pin in shop.pins if pin.rule == rule}
    return np.array([tuple(each[each >= 0].tolist()) in asked for each in items], bool)


def components(items: Ints, shop: Shop, rules: Rules, window: Window) -> pa.ListArray:
    """Each bundle's components, by SKU, each with the substitutes that may stand in for it there."""
    row, spot = np.nonzero(items >= 0)
    item = items[row, spot]
    others = _substitutes(items, row, spot, shop, window)[:, : rules.bundling.substitutes]
    kept = others >= 0
    ends = pa.array(np.concatenate(([0], np.cumsum(kept.sum(1)))).astype(np.int32))
    stands_in = shop.skus.take(pa.array(others[kept]))
    substitutes = pa.StructArray.from_arrays(
        [stands_in, pa.nulls(len(stands_in), pa.int64())], fields=list(_SUBSTITUTE)
    )
    parts = pa.StructArray.from_arrays(
        [
            shop.skus.take(pa.array(item)),
            pa.array(np.ones(len(item), np.int32)),
            pa.nulls(len(item), pa.int64()),
            pa.ListArray.from_arrays(ends, substitutes),
        ],
        fields=list(COMPONENT),
    )
    bundle_ends = pa.array(np.concatenate(([0], np.cumsum((items >= 0).sum(1)))).astype(np.int32))
    return pa.ListArray.from_arrays(bundle_ends, parts)


def _substitutes(items: Ints, row: np.ndarray, spot: np.ndarray, shop: Shop, window: Window) -> Ints:
    """Shape (components, most): what may stand in for each, best first, -1 last: not in the bundle already, not
    excluded, and nothing that a rule keeps apart from the other components.
    """
    others = shop.substitutes[items[row, spot]]
    held = [rule for rule in shop.held if rule.covers(window.region, window.segment)]
    good = others >= 0
    for rule in held:
        if rule.excludes:
            good &= ~rule.products[others]
    for place in range(items.shape[1]):
        other = items[row, place][:, None]
        good &= (other < 0) | (others != other)
        apart = (other >= 0) & (spot[:, None] != place)
        good &= ~apart | may_meet(others, np.broadcast_to(other, others.shape), held)
    good &= _keeps_complete(items, row, spot, others, held)
    order = np.argsort(~good, axis=1, kind="stable")
    return np.take_along_axis(np.where(good, others, ABSENT), order, 1)


def _keeps_complete(items: Ints, row: np.ndarray, spot: np.ndarray, others: Ints, held: list[Held]) -> Mask:
    """Whether the bundle with the substitute in its place still holds what its products are always with."""
    good = np.ones(others.shape, bool)
    if any(rule.rule.action == "always_with" for rule in held):
        for column in range(others.shape[1]):
            changed = items[row].copy()
            changed[np.arange(len(row)), spot] = others[:, column]
            good[:, column] = complete(changed, held)
    return good
