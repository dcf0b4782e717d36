"""Rows of a build as what a release holds: which shards need a row; rows as lists, bundles and products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import starmap
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdn.keys import shard_of
from cdn.shards import Product
from tandem import why
from tandem.bundle import AnchorList, Bundle, Component, Listed, Story, Substitute
from tandem.errors import TandemError
from tandem.rules import Action
from tandem.why import Decided, Shaped, Why

LIST_COLUMNS = ["segment", "anchor", "bundles"]
BUNDLE_COLUMNS = [
    "segment",
    "bundle_id",
    "components",
    "discount_bps",
    "evidence.orders_together",
    "evidence.lift",
    "pricing.reason",
    "rules",
]
PRODUCT_COLUMNS = ["sku", "title", "brand", "category", "image_url"]
Ints = np.ndarray
Named = tuple[Ints, pa.Array]
"""Rows of a table, and for each a SKU that it names. Of the same shape; a row may be there several times."""


def shards_of(skus: pa.Array, count: int) -> Ints:
    """The shard of each SKU, looked up once for each that differs. Shape (skus,)."""
    coded = skus.dictionary_encode()
    shards = np.fromiter((shard_of(sku, count) for sku in coded.dictionary.to_pylist()), np.int64)
    return shards[coded.indices.to_numpy()]


def anchors(lists: pa.Table) -> Named:
    """Each list's row and anchor."""
    return np.arange(len(lists)), _one(lists["anchor"])


def components(bundles: pa.Table) -> Named:
    """Each component's row and SKU."""
    parts = _one(bundles["components"])
    return pc.list_parent_indices(parts).to_numpy(), pc.struct_field(pc.list_flatten(parts), "sku")


def by_shard(rows: pa.Table, row: Ints, shard: Ints) -> Iterator[tuple[int, pa.Table]]:
    """A table's rows `row` for each `shard` (of the same shape), each row once."""
    shard, row = np.divmod(np.unique(shard * len(rows) + row), max(1, len(rows)))
    held = rows.take(pa.array(row))
    starts = np.flatnonzero(np.diff(shard, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts, len(shard)][1:], strict=True):
        yield int(shard[start]), held.slice(start, end - start)


def skus(lists: Iterable[pa.Table], bundles: Iterable[pa.Table]) -> pa.Array:
    """Every product that these name, each once: anchors, components and what may stand in for them."""
    found = [pa.array([], pa.string()), *(_one(rows["anchor"]) for rows in lists)]
    for rows in bundles:
        parts = pc.list_flatten(_one(rows["components"]))
        others = pc.list_flatten(pc.struct_field(parts, "substitutes"))
        found += [pc.struct_field(parts, "sku"), pc.struct_field(others, "sku")]
    return pc.unique(pa.concat_arrays(found))


def lists(rows: pa.Table, told: dict[tuple[str, str], Story], bodies: dict[str, Bundle]) -> list[AnchorList]:
    """Rows of bundle_sets. A place has a story of its own where its segment tells another one than the body."""
    flat = pc.list_flatten(_one(rows["bundles"]))
    ids, confidences, levels = (_values(pc.struct_field(flat, each)) for each in ("bundle_id", "confidence", "matched"))
    ends = np.cumsum(pc.list_value_length(_one(rows["bundles"])).to_numpy()).tolist()
    found, start = [], 0
    for segment, anchor, end in zip(_values(rows["segment"]), _values(rows["anchor"]), ends, strict=True):
        places = tuple(
            Listed(
                ids[at],
                round(confidences[at], 4),
                levels[at],
                _own(told, bodies, segment, anchor, ids[at]),
            )
            for at in range(start, end)
        )
        found.append(AnchorList(segment, anchor, places))
        start = end
    return found


def _own(
    told: dict[tuple[str, str], Story], bodies: dict[str, Bundle], segment: str, anchor: str, bundle_id: str
) -> Story | None:
    try:
        own, body = told[segment, bundle_id], bodies[bundle_id]
    except KeyError as error:
        raise TandemError(
            f"the list of {anchor!r} for segment {segment} names bundle {bundle_id}, which this build does not hold "
            f"with {anchor!r} as a component; run the job bundles again"
        ) from error
    return None if own == Story(body.orders_together, body.lift, body.discount_bps, body.why) else own


def bundles(rows: pa.Table) -> tuple[dict[str, Bundle], dict[tuple[str, str], Story]]:
    """Rows of bundles as bodies, each as the first segment tells it, and each segment's own story."""
    rows = rows.take(pc.sort_indices(rows, sort_keys=[("bundle_id", "ascending"), ("segment", "ascending")]))
    evidence = _one(rows["evidence"])
    orders, lifts = (_values(pc.struct_field(evidence, each)) for each in ("orders_together", "lift"))
    ids, discounts = _values(rows["bundle_id"]), _values(rows["discount_bps"])
    lifts = (round(lift, 2) for lift in lifts)
    stories = [Story(*each) for each in zip(orders, lifts, discounts, _whys(rows), strict=True)]
    told = dict(zip(zip(_values(rows["segment"]), ids, strict=True), stories, strict=True))
    first = {name: place for place, name in reversed(list(enumerate(ids)))}
    places = sorted(first.values())
    parts = _components(_one(rows["components"]).take(pa.array(places)))
    bodies = {
        ids[place]: Bundle(
            ids[place],
            part,
            stories[place].discount_bps,
            stories[place].orders_together,
            stories[place].lift,
            stories[place].why,
        )
        for place, part in zip(places, parts, strict=True)
    }
    return bodies, told


def _whys(rows: pa.Table) -> Iterator[tuple[int, ...]]:
    """Of each row of bundles, as it travels. Most have the same: each is made once."""
    reasons = pc.struct_field(_one(rows["pricing"]), "reason").to_pylist()
    for reason, rules in zip(reasons, rows["rules"].to_pylist(), strict=True):
        yield _why(reason, tuple((rule["line"], rule["action"]) for rule in rules or ()))


@cache
def _why(reason: Decided | None, rules: tuple[tuple[int, Action], ...]) -> tuple[int, ...]:
    return why.encode(Why(reason or "unknown", tuple(starmap(Shaped, rules))))


def _components(parts: pa.Array) -> Iterator[tuple[Component, ...]]:
    flat = pc.list_flatten(parts)
    others = pc.struct_field(flat, "substitutes")
    other = pc.list_flatten(others)
    stand_ins = list(map(Substitute, _values(pc.struct_field(other, "sku")), _whole(other, "floor_cents")))
    made = list(
        map(
            Component,
            _values(pc.struct_field(flat, "sku")),
            _whole(flat, "quantity"),
            _whole(flat, "floor_cents"),
            _cut(stand_ins, pc.list_value_length(others)),
        )
    )
    return _cut(made, pc.list_value_length(parts))


def products(rows: pa.Table) -> dict[str, Product]:
    """Rows of products, as the public may know them."""
    columns = (_values(rows[name]) for name in PRODUCT_COLUMNS)
    return {row[0]: Product(*row) for row in zip(*columns, strict=True)}


def _cut(items: list[Any], lengths: pa.Array) -> Iterator[tuple[Any, ...]]:
    """`items` as tuples of `lengths`, in order."""
    start = 0
    for end in np.cumsum(lengths.to_numpy()).tolist():
        yield tuple(items[start:end])
        start = end


def _whole(rows: pa.Array, column: str) -> list[Any]:
    return pc.struct_field(rows, column).to_pylist()  # type: ignore[no-any-return]


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    return _one(column).to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
