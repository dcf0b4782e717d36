"""From what is felt and what the last build knows to the candidates of one region, ranked for each anchor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.kernels import trends
from spark_jobs.kernels.trends import Floats, Ints, Mask, Pairs, Signals
from tandem import merchandising
from tandem.bundle import bundle_id
from tandem.merchandising import LEVEL, Product, Resolved
from tandem.rules import Bundling, Live
from tandem.segments import ALL

SIGNALS = pa.schema(
    [("actor", pa.string()), ("kind", pa.int64()), ("sku", pa.string()), ("at", pa.timestamp("us", "UTC")),
     ("weight", pa.float64())]
)  # fmt: skip
"""What shoppers felt: `kind` is of the actor's name; see `trends.Signals`."""
KNOWN = ("anchor", "companion", "orders_total", "orders_anchor", "orders_both", "confidence", "lift")
"""Of affinity: what the last build counted in the region."""


LOOKED_AT = 10
"""Pairs that rules are asked about, for each place there is for one: what rules forbid leaves room for the next."""


class Goods(NamedTuple):
    """What is known of the products of the window and of those that the last build knows with them, by SKU."""

    products: Mapping[str, Product]
    """Those that may be bundled."""
    price: Mapping[str, int]
    """Minor units; none: not known."""
    floor: Mapping[str, int]
    rules: Sequence[Resolved]
    listed: Mapping[str, Collection[str]]
    """By anchor: ids of the bundles that the last build lists for it, which need no candidate."""


class Candidate(NamedTuple):
    """A pair that may be offered now."""

    anchor: str
    companion: str
    rank: int
    kind: str
    actors: int
    orders_together: int
    confidence: float
    lift: float
    surge: float


class _Found(NamedTuple):
    """Pairs by the codes of their products; each field has shape (pairs,)."""

    anchor: Ints
    companion: Ints
    trending: Mask
    actors: Ints
    orders: Ints
    confidence: Floats
    lift: Floats
    surge: Floats


def candidates(
    signals: pa.Table, known: pa.Table, goods: Goods, now: int, live: Live, bundling: Bundling, region: str, k: int
) -> list[Candidate]:
    """Candidates of one region from rows of SIGNALS and of KNOWN; `now` in microseconds since 1970.

    `k` distinct shoppers at least stand behind each, or behind the product that takes off.
    """
    names = pc.unique(pa.concat_arrays([signals["sku"].combine_chunks(), *_sides(known)])).sort()
    found = _found(_signals(signals, names, now), known, names, live, max(k, live.min_actors))
    looked_at, _ = trends.best(found.anchor, found.confidence, found.companion, LOOKED_AT * live.per_anchor)
    skus, rules = names.to_pylist(), [rule for rule in goods.rules if rule.covers(region, ALL)]
    pairs = zip(found.anchor[looked_at].tolist(), found.companion[looked_at].tolist(), strict=True)
    factor = np.array([_factor((skus[a], skus[b]), goods, rules, bundling.max_price_ratio) for a, b in pairs])
    keep = looked_at[factor > 0]
    score = found.confidence[keep] * factor[factor > 0]
    place, rank = trends.best(found.anchor[keep], score, found.companion[keep], live.per_anchor)
    chosen = _within(keep[place], rank, score[place], found.anchor, live.anchors)
    return [_candidate(found, at, number, skus) for at, number in chosen]


def _sides(known: pa.Table) -> list[pa.Array]:
    return [known[name].combine_chunks() for name in ("anchor", "companion")]


def _signals(rows: pa.Table, names: pa.Array, now: int) -> Signals:
    actor = rows["actor"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    at = rows["at"].cast(pa.int64()).to_numpy()
    return Signals(
        actor=actor,
        kind=rows["kind"].to_numpy(),
        product=_codes(rows["sku"], names),
        age=np.maximum(now - at, 0) / 1e6,
        weight=rows["weight"].to_numpy(),
    )


def _codes(column: pa.ChunkedArray, names: pa.Array) -> Ints:
    return pc.index_in(column.combine_chunks(), names).to_numpy().astype(np.int64)


def _found(signals: Signals, known: pa.Table, names: pa.Array, live: Live, k: int) -> _Found:
    felt = trends.felt(signals, live.half_life_minutes * 60)
    strength, actors = trends.of_products(felt, len(names))
    crowd = trends.shoppers(felt)
    anchor, companion = (_codes(known[name], names) for name in ("anchor", "companion"))
    orders, total = np.zeros(len(names), np.int64), int(known["orders_total"].to_numpy().max(initial=0))
    orders[anchor] = known["orders_anchor"].to_numpy()
    surges = trends.surge(strength, crowd, orders, total)
    rising = (surges >= live.min_surge) & (actors >= k)
    seen = trends.pairs(felt, len(names))
    sure = seen.actors >= k
    code = np.concatenate([_code(seen, names)[sure], (anchor * len(names) + companion)[rising[companion]]])
    return _pairs(np.unique(code), seen, known, names, strength, actors, crowd, surges, live.prior, k)


def _code(seen: Pairs, names: pa.Array) -> Ints:
    return seen.anchor * len(names) + seen.companion


def _pairs(
    code: Ints, seen: Pairs, known: pa.Table, names: pa.Array, strength: Floats, actors: Ints, crowd: float,
    surges: Floats, prior: float, k: int,
) -> _Found:  # fmt: skip
    anchor, companion = code // len(names), code % len(names)
    together, both = (_looked_up(code, _code(seen, names), values) for values in (seen.strength, seen.actors))
    own = _codes(known["anchor"], names) * len(names) + _codes(known["companion"], names)
    said, lifts, orders = (
        _looked_up(code, own, known[name].to_numpy().astype(float)) for name in ("confidence", "lift", "orders_both")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        lively = trends.lift(together, strength[anchor], strength[companion], crowd)
    prior_mean = trends.raised(said, surges[companion])
    return _Found(
        anchor,
        companion,
        trending=both < k,
        actors=np.where(both < k, actors[companion], both).astype(np.int64),
        orders=orders.astype(np.int64),
        confidence=trends.confidence(together, strength[anchor], prior_mean, prior),
        lift=np.where(lifts > 0, lifts, lively),
        surge=surges[companion],
    )


def _looked_up(wanted: Ints, codes: Ints, values: Floats) -> Floats:
    """Of each of `wanted` the value at its place in `codes`; 0 where it has none."""
    if not len(codes):
        return np.zeros(len(wanted))
    order = np.argsort(codes, kind="stable")
    place = np.minimum(np.searchsorted(codes[order], wanted), len(codes) - 1)
    return np.where(codes[order][place] == wanted, values[order][place], 0)


def _factor(pair: tuple[str, str], goods: Goods, rules: Sequence[Resolved], most_ratio: float) -> float:
    """What rules make of a pair's score; 0 where they forbid it, or it is no offer that a build would make."""
    first, second = (goods.products.get(sku) for sku in pair)
    if first is None or second is None or _alike(first, second):
        return 0.0
    if bundle_id((sku, 1) for sku in pair) in goods.listed.get(pair[0], ()):
        return 0.0
    prices = [goods.price[sku] for sku in pair if sku in goods.price]
    if len(prices) == 2 and max(prices) > most_ratio * min(prices):
        return 0.0
    return merchandising.factor(pair, rules) if merchandising.possible(pair, rules) else 0.0


def _alike(first: Product, second: Product) -> bool:
    """Of one finest category: shoppers look at both to choose one of them."""
    return bool(first.category) and first.category.split(LEVEL) == second.category.split(LEVEL)


def _within(places: Ints, ranks: Ints, score: Floats, anchor: Ints, most: int) -> list[tuple[int, int]]:
    """Those of the `most` anchors whose first candidate scores best."""
    firsts = np.flatnonzero(ranks == 1)
    kept = anchor[places[firsts[np.argsort(-score[firsts], kind="stable")[:most]]]]
    inside = np.isin(anchor[places], kept)
    return list(zip(places[inside].tolist(), ranks[inside].tolist(), strict=True))


def _candidate(found: _Found, at: int, rank: int, skus: list[str]) -> Candidate:
    return Candidate(
        anchor=skus[found.anchor[at]],
        companion=skus[found.companion[at]],
        rank=rank,
        kind="trending" if found.trending[at] else "together",
        actors=int(found.actors[at]),
        orders_together=int(found.orders[at]),
        confidence=float(found.confidence[at]),
        lift=float(found.lift[at]),
        surge=float(found.surge[at]),
    )
