"""The lists of one window of the shop (a segment of a region), chosen from what its levels know of bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.kernels import cells, cover
from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.lawful import lawful, members, sane
from spark_jobs.kernels.sets import ABSENT, LARGEST
from spark_jobs.kernels.shop import Floats, Held, Mask, Shop, places
from tandem.bundle import bundle_id
from tandem.rules import Rules
from tandem.segments import ALL

LEVELS = ("segment", "region", "global")
BY_RULE = len(LEVELS)
"""In the place of a level: no level supports the bundle, a rule asks for it."""
PRIOR_ORDERS = 20.0
"""What a coarser level (at the coarsest: chance) says of a share counts like so many orders of the anchor."""
LIFT_WEIGHT = 0.3
"""What lift counts for in `worth`; from 0.1 to 0.5 makes little difference on later data."""
MAX_OVERLAP = 0.5
"""Jaccard similarity beyond which two bundles are near duplicates."""


@dataclass(frozen=True)
class Pool:
    """Bundles that a window may list, with what each level (see LEVELS) says of them. B bundles, L levels.

    Where a level says nothing of a bundle, its orders there are 0.
    """

    ids: pa.Array
    items: Ints
    """Shape (B, 4): numbers of the shop, ascending, -1 fills."""
    each: NDArray[np.int64]
    """Shape (L, B, 4): orders that hold each item."""
    together: NDArray[np.int64]
    """Shape (L, B)."""
    customers: NDArray[np.int64]
    """Shape (L, B)."""
    total: NDArray[np.int64]
    """Shape (L,): all orders of the level."""
    mined: Mask
    """Shape (L, B)."""
    level: Ints
    """Shape (B,): the finest level with k customers; BY_RULE where there is none."""

    @property
    def size(self) -> Ints:
        return (self.items >= 0).sum(1)

    def where(self, keep: Mask) -> Pool:
        return Pool(
            self.ids.filter(pa.array(keep)),
            self.items[keep],
            self.each[:, keep],
            self.together[:, keep],
            self.customers[:, keep],
            self.total,
            self.mined[:, keep],
            self.level[keep],
        )


def _pool(tables: Mapping[int, pa.Table], shop: Shop, k: int) -> Pool:
    """`tables` (rows of FOUND by level) and the pins, by bundle; a level counts where it has `k` customers."""
    asked = sorted({pin.skus for pin in shop.pins})
    named = pa.array([bundle_id((sku, 1) for sku in skus) for skus in asked], pa.string())
    ids = pa.concat_arrays([*(table["bundle_id"].combine_chunks() for table in tables.values()), named])
    lists = [*(table["skus"].combine_chunks() for table in tables.values()), pa.array(asked, pa.list_(pa.string()))]
    number, known = cells.codes(ids)
    firsts = np.unique(number, return_index=True)[1]
    skus = pa.concat_arrays(lists).take(pa.array(firsts))
    items = _square(shop.numbers(skus.flatten()), skus.value_lengths().to_numpy(), ABSENT)
    levels, bundles = len(LEVELS), len(known)
    each = np.zeros((levels, bundles, LARGEST), np.int64)
    together, customers = np.zeros((levels, bundles), np.int64), np.zeros((levels, bundles), np.int64)
    mined_there, total = np.zeros((levels, bundles), bool), np.ones(levels, np.int64)
    begin = 0
    for level, table in tables.items():
        place = number[begin : begin + len(table)]
        begin += len(table)
        lengths = table["skus"].combine_chunks().value_lengths().to_numpy()
        each[level, place] = _square(table["orders_each"].combine_chunks().flatten().to_numpy(), lengths, 0)
        together[level, place] = table["orders_together"].to_numpy()
        customers[level, place] = table["customers_together"].to_numpy()
        np.logical_or.at(mined_there[level], place, table["mined"].to_numpy())
        total[level] = table["orders_total"][0].as_py() if len(table) else 1
    good = customers >= k
    level = np.where(good.any(0), good.argmax(0), BY_RULE).astype(np.int32)
    return Pool(known, items, each, together, customers, total, mined_there & good, level)


def _square(values: np.ndarray, lengths: np.ndarray, fill: int) -> np.ndarray:
    """Lists as rows of LARGEST values."""
    rows = np.full((len(lengths), LARGEST), fill, values.dtype)
    rows[np.arange(LARGEST) < lengths[:, None]] = values
    return rows


@dataclass(frozen=True)
class Window:
    """A place of the shop that has lists of its own: a segment of a region, or a region for all others (`*`)."""

    region: str
    segment: str
    k: int


@dataclass(frozen=True)
class Offers:
    """What is listed: offers by anchor, best first. Shapes (offers,) and, of bundles, as in the pool."""

    pool: Pool
    anchor: Ints
    """Number of the shop."""
    bundle: NDArray[np.int64]
    """Place in the pool."""
    score: Floats
    expected: Floats
    """Share of the anchor's later orders that are expected to hold the whole bundle."""
    confidence: Floats
    """Share of the anchor's orders, at the bundle's level, that hold it; 0 where no level supports it."""


def offers(
    tables: Mapping[int, pa.Table], shop: Shop, rules: Rules, window: Window, preferred: pa.Table | None = None
) -> Offers:
    """The lists of `window` from the sets of its levels (`tables`: place in LEVELS to rows of FOUND).

    A region's own lists hold what the region and everything support. A segment has a list of its own for the anchors
    that it supports at least one set of, or that are pinned for it. `preferred` (anchor, companion, place) orders the
    pairs of an anchor: they share out the scores of its pairs in that order.
    """
    held = [rule for rule in shop.held if rule.covers(window.region, window.segment)]
    pool = _pool(tables, shop, window.k)
    pool = pool.where(_allowed(pool, shop, rules, window, held))
    offered = _offered(pool, window)
    bundle, spot = offered
    anchor = pool.items[bundle, spot]
    expected, share = _expected(pool, bundle, spot)
    damped = _damped(pool, bundle, spot, rules.learning.popularity_damping)
    others = pool.size[bundle] - 1
    score = others * expected / damped
    if preferred is not None:
        score = _by_preference(pool, shop, preferred, anchor, bundle, score)
    score = score * _factor(pool.items, held)[bundle]
    found = Offers(pool, anchor, bundle, score, expected, share)
    fine = _few_varieties(found, shop, rules.bundling.varieties_per_anchor)
    return _with_pins(_chosen(_some(found, fine), shop, rules), shop, window, rules.bundling.per_anchor)


def _allowed(pool: Pool, shop: Shop, rules: Rules, window: Window, held: list[Held]) -> Mask:
    """Which bundles no rule of this window forbids, and are sane in this region's prices unless pinned."""
    items = pool.items
    good = lawful(items, held) & (items >= 0).any(1)
    price = shop.prices(window.region)
    asked = pc.is_in(pool.ids, pa.array([bundle_id((sku, 1) for sku in pin.skus) for pin in shop.pins], pa.string()))
    priced = asked.to_numpy(zero_copy_only=False)
    for both, one, other in members(items):
        good[both] &= priced[both] | sane(price[one], price[other], rules.bundling.max_price_ratio)
    return good


def _offered(pool: Pool, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bundle and place of the anchor in it, of all that the orders speak for."""
    bundle, spot = np.nonzero((pool.items >= 0) & pool.mined.any(0)[:, None])
    if window.segment == ALL:
        return bundle, spot
    own = pool.mined[0]
    served = np.unique(pool.items[own][pool.items[own] >= 0])
    fine = np.isin(pool.items[bundle, spot], served)
    return bundle[fine], spot[fine]


def _expected(pool: Pool, bundle: NDArray[np.int64], spot: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Share of the anchor's orders that will hold the bundle, and the share that held it at the bundle's level.

    From coarse to fine each level moves what the coarser one expects: (together + m · expected) / (orders of the
    anchor + m), m = PRIOR_ORDERS; the coarsest starts from chance (the posterior mean of a beta prior: Gelman et al.,
    Bayesian Data Analysis, 3rd ed., 2013, section 2.4).
    """
    expected, share = np.full(len(bundle), np.nan), np.zeros(len(bundle))
    for level in reversed(range(len(LEVELS))):
        each, together = pool.each[level, bundle], pool.together[level, bundle]
        told = together > 0
        anchor = np.maximum(each[np.arange(len(bundle)), spot], 1)
        rates = np.where(pool.items[bundle] >= 0, each / pool.total[level], 1.0)
        chance = rates.prod(1) / np.maximum(rates[np.arange(len(bundle)), spot], 1e-12)
        before = np.where(np.isnan(expected), chance, expected)
        expected = np.where(told, (together + PRIOR_ORDERS * before) / (anchor + PRIOR_ORDERS), expected)
        share = np.where(pool.level[bundle] == level, together / anchor, share)
    return np.nan_to_num(expected), share


def _damped(pool: Pool, bundle: NDArray[np.int64], spot: NDArray[np.int64], damping: float) -> Floats:
    """Mean over the companions of their share of all orders, to the power of `damping`, at the bundle's level."""
    level = np.minimum(pool.level[bundle], len(LEVELS) - 1)
    shares = (pool.each[level, bundle] / pool.total[level][:, None]) ** damping
    shares = np.where(pool.items[bundle] >= 0, shares, 0.0)
    return (shares.sum(1) - shares[np.arange(len(bundle)), spot]) / np.maximum(pool.size[bundle] - 1, 1)


def _factor(items: Ints, held: list[Held]) -> Floats:
    """Shape (sets,): product of the boosts and buries that mean each set."""
    total = np.ones(len(items))
    for rule in held:
        if rule.rule.action in ("boost", "bury"):
            total[meant(items, rule)] *= rule.rule.factor if rule.rule.action == "boost" else 1 / rule.rule.factor
    return total


def meant(items: Ints, rule: Held) -> Mask:
    """Shape (sets,): those that hold a product of the rule, and another of its companions where it names any."""
    product = (items >= 0) & rule.products[items]
    if not rule.rule.companions:
        return product.any(1)
    companion = (items >= 0) & rule.companions[items]
    return (product & (companion.sum(1)[:, None] - companion > 0)).any(1)


def _by_preference(
    pool: Pool, shop: Shop, preferred: pa.Table, anchor: Ints, bundle: NDArray[np.int64], score: Floats
) -> Floats:
    """`score` with that of each anchor's pairs dealt out anew: the best to the companion that is preferred most."""
    pair = np.flatnonzero(pool.size[bundle] == 2)
    items = pool.items[bundle[pair], :2]
    companion = np.where(items[:, 0] == anchor[pair], items[:, 1], items[:, 0])
    wish = _keys(shop, shop.numbers(preferred["anchor"]), shop.numbers(preferred["companion"]))
    order = np.argsort(wish, kind="stable")
    rank = preferred["place"].to_numpy().astype(np.int64)[order]
    asked = _keys(shop, anchor[pair], companion)
    spot = np.minimum(np.searchsorted(wish[order], asked), max(len(wish) - 1, 0))
    found = (wish[order][spot] == asked) if len(wish) else np.zeros(len(asked), bool)
    place = np.where(found, rank[spot] if len(wish) else 0, np.iinfo(np.int64).max)
    by_score = np.lexsort((bundle[pair], -score[pair], anchor[pair]))
    by_wish = np.lexsort((bundle[pair], -score[pair], place, anchor[pair]))
    dealt = score.copy()
    dealt[pair[by_wish]] = score[pair[by_score]]
    return dealt


def _keys(shop: Shop, anchor: Ints, companion: Ints) -> NDArray[np.int64]:
    return anchor.astype(np.int64) * len(shop.skus) + companion


def _few_varieties(found: Offers, shop: Shop, most: int) -> Mask:
    """Leaves out all but the `most` best bundles of two varieties of each anchor."""
    items = found.pool.items[found.bundle]
    category = shop.category
    pair = found.pool.size[found.bundle] == 2
    same = pair & (category[items[:, 0]] == category[items[:, 1]])
    of_one = np.flatnonzero(same)
    order = of_one[np.lexsort((found.bundle[of_one], -found.score[of_one], found.anchor[of_one]))]
    keep = ~same
    keep[order[places(found.anchor[order]) < most]] = True
    return keep


def _some(found: Offers, which: np.ndarray) -> Offers:
    return Offers(
        found.pool,
        found.anchor[which],
        found.bundle[which],
        found.score[which],
        found.expected[which],
        found.confidence[which],
    )


def _chosen(found: Offers, shop: Shop, rules: Rules) -> Offers:
    """A selection that serves each anchor with different needs and covers the catalogue; each anchor's best first."""
    found = _some(found, np.lexsort((found.bundle, found.anchor)))
    items = found.pool.items[found.bundle]
    companions = (items >= 0) & (items != found.anchor[:, None])
    starts = np.concatenate(([0], np.cumsum(companions.sum(1)))).astype(np.int64)
    chosen = cover.choose(
        found.anchor,
        _values(found, shop, rules.bundling.larger_sets),
        starts,
        items[companions],
        shop.category,
        per_anchor=rules.bundling.per_anchor,
        diversity=rules.bundling.diversity,
        reach=rules.bundling.reach,
        max_overlap=MAX_OVERLAP,
    )
    return _some(found, chosen[np.argsort(found.anchor[chosen], kind="stable")])


def _values(found: Offers, shop: Shop, larger_sets: float) -> Floats:
    """Each offer against its anchor's best: pairs against the best pair, larger sets against the best of them."""
    larger = found.pool.size[found.bundle] > 2
    highest = np.zeros((2, len(shop.skus)))
    np.maximum.at(highest, (larger.astype(np.int64), found.anchor), found.score)
    best = np.maximum(highest[larger.astype(np.int64), found.anchor], 1e-300)
    alone = highest[0, found.anchor] == 0
    return found.score / best * np.where(larger & ~alone, larger_sets, 1.0)


def _with_pins(found: Offers, shop: Shop, window: Window, per_anchor: int) -> Offers:
    """Pins first, in the order of the file; then what was chosen, as far as there is room."""
    wanted = [pin for pin in shop.pins if shop.held[pin.rule].covers(window.region, window.segment)]
    if not wanted:
        return found
    ids = pa.array([bundle_id((sku, 1) for sku in pin.skus) for pin in wanted], pa.string())
    bundle = pc.fill_null(pc.index_in(ids, found.pool.ids), ABSENT).to_numpy(zero_copy_only=False).astype(np.int64)
    anchor = shop.numbers(pa.array([pin.anchor for pin in wanted], pa.string()))
    fine = bundle >= 0
    bundle, anchor = bundle[fine], anchor[fine]
    spot = (found.pool.items[bundle] == anchor[:, None]).argmax(1)
    expected, share = _expected(found.pool, bundle, spot)
    by_rule = found.pool.level[bundle] == BY_RULE
    expected[by_rule] = 0.0
    top = np.zeros(len(shop.skus))
    np.maximum.at(top, found.anchor, found.score)
    both = Offers(
        found.pool,
        np.concatenate((anchor, found.anchor)),
        np.concatenate((bundle, found.bundle)),
        np.concatenate((top[anchor], found.score)),
        np.concatenate((expected, found.expected)),
        np.concatenate((share, found.confidence)),
    )
    _, firsts = np.unique(_pairs_of(both), return_index=True)
    both = _some(both, np.sort(firsts))
    both = _some(both, np.argsort(both.anchor, kind="stable"))
    return _some(both, places(both.anchor) < per_anchor)


def _pairs_of(found: Offers) -> NDArray[np.int64]:
    return found.anchor.astype(np.int64) * max(len(found.pool.items), 1) + found.bundle


def worth(pool: Pool) -> Floats:
    """Shape (B,): how good each bundle is, so that bundles of different anchors compare, at its own level.

    Attach rate, each product in turn the anchor, times lift to the power of LIFT_WEIGHT: size · together / (Σ orders of
    each + size · PRIOR_ORDERS) · lift^(LIFT_WEIGHT / (size - 1)). For pairs the first factor is Dice's coefficient
    (Dice, Ecology 26(3), 1945), shrunk. A bundle by rule alone has none.
    """
    level = np.minimum(pool.level, len(LEVELS) - 1)
    bundle = np.arange(len(pool.items))
    each, together = pool.each[level, bundle], pool.together[level, bundle]
    size = pool.size
    attached = size * together / (np.where(pool.items >= 0, each, 0).sum(1) + size * PRIOR_ORDERS)
    lifted = lift(pool, bundle) ** (LIFT_WEIGHT / np.maximum(size - 1, 1))
    return np.where(pool.level == BY_RULE, 0.0, attached * lifted)


def best(pool: Pool, count: int) -> NDArray[np.int64]:
    """The `count` bundles of most worth that the orders speak for, no near duplicate of a better one; ties by id."""
    value = np.where(pool.mined.any(0), worth(pool), -1.0)
    taken: list[int] = []
    for bundle in np.lexsort((np.arange(len(value)), -value)):
        if len(taken) == count or value[bundle] < 0:
            break
        own = set(pool.items[bundle]) - {ABSENT}
        others = (set(pool.items[other]) - {ABSENT} for other in taken)
        if all(len(own & other) <= MAX_OVERLAP * len(own | other) for other in others):
            taken.append(int(bundle))
    return np.array(taken, np.int64)


def lift(pool: Pool, listed: NDArray[np.int64]) -> Floats:
    """Orders together over what independent purchase would give, c · n^(size-1) / Π n_i; 0 where no level tells."""
    level = np.minimum(pool.level[listed], len(LEVELS) - 1)
    total = pool.total[level].astype(np.float64)
    rates = pool.each[level, listed] / total[:, None]
    expected = np.where((pool.items[listed] >= 0) & (rates > 0), rates, 1.0).prod(1)
    return np.where(pool.level[listed] == BY_RULE, 0.0, pool.together[level, listed] / total / expected)
