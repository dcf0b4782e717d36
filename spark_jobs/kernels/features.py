"""What is known about a pair of products before it is ranked: candidates of every anchor, and figures of each.

Everything is counted from orders alone where there is nothing else: a shop without categories, prices, brands or
customers has fewer figures (NaN, which the trees send their own way), not wrong ones. Orders are walked once to count
all pairs, which costs their pair increments; figures of groups (a category, the neighbours) add up rows of that count.
Memory is 8 bytes a different pair, a few numbers an order line, and a row of figures for each of the at most WIDTH
candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels.baselines import Postings, count_anchor, insert, postings
from spark_jobs.kernels.cells import Ints, Offsets
from spark_jobs.kernels.pairs import grown
from spark_jobs.kernels.protocol import Orders, popular

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

WIDTH = 100
"""Candidates of an anchor."""
TAIL_WIDTH = 40
"""Of them, those chosen with popular products damped."""
DAMPING = 0.35
POPULAR = 50
"""The most popular products are candidates of every anchor."""
NEIGHBOURS = 20
"""Products whose orders an anchor leans on, itself not counted."""
FACTORS = 48
ITERATIONS = 4
SEED = 7
HALF_LIFE_DAYS = 60.0
RECENT_DAYS = 28
LEAN_NEIGHBOURS, LEAN_CATEGORY, LEAN_POPULAR = 20.0, 15.0, 1.0
"""Orders that neighbours, category and popularity count for, beside the anchor's own."""
SHARPNESS = 4.0
"""Weight of a neighbour: the cosine to this power."""

NAMES = (
    "together",
    "confidence",
    "reverse_confidence",
    "recent_confidence",
    "neighbours",
    "category",
    "parent_category",
    "popularity",
    "recent_popularity",
    "orders_anchor",
    "need",
    "category_need",
    "share_of_category",
    "same",
    "same_brand",
    "price_ratio",
    "price",
    "alike",
    "lift",
    "small_orders",
    "order_size",
    "customers",
    "smoothed",
)
"""Columns of the figures, see `figures`."""


@dataclass(frozen=True)
class Catalogue:
    """What is known of each product besides orders."""

    category: Ints
    """Shape (3, products): number of the finest category, of the one above it, and of the first level; -1: none."""
    brand: Ints
    """-1: none."""
    price: Floats
    """NaN: none."""

    def of(self, known: Ints) -> Catalogue:
        return Catalogue(self.category[:, known], self.brand[known], self.price[known])


class Pairs(NamedTuple):
    """Rows of a symmetric matrix: the products each product was bought with, itself included, and how often."""

    starts: Offsets
    """Shape (products + 1): where each product's row begins in `items`."""
    items: Ints
    orders: Singles


@dataclass(frozen=True)
class Evidence:
    """Orders prepared for walking, and what was learned of products from all of them."""

    held: Postings
    weight: Floats
    """Shape (orders): half after each HALF_LIFE_DAYS."""
    decayed: Floats
    """Shape (products): orders of each, by weight."""
    recent: Floats
    """Shape (products): share of the orders of the last RECENT_DAYS that hold it."""
    customers: Floats
    """Shape (products): distinct customers."""
    vectors: Singles
    """Shape (products, factors): unit vectors; near are those bought with the same products."""
    neighbours: Ints
    """Shape (products, NEIGHBOURS + 1): the product itself, then the nearest; -1: none."""
    closeness: Floats
    """Their weights, 0 to 1."""
    catalogue: Catalogue
    pairs: Pairs
    """Who was bought with whom: 8 bytes a pair that stands in one order."""


def evidence(orders: Orders, catalogue: Catalogue) -> Evidence:
    """What `orders` (in known products) tell of pairs; `catalogue` numbers the same products."""
    by_customer = np.argsort(orders.customer, kind="stable")
    orders = _arranged(orders, by_customer)
    held = postings(orders)
    last = int(orders.day.max(initial=0))
    weight = 0.5 ** ((last - orders.day) / HALF_LIFE_DAYS)
    late = orders.where(orders.day > last - RECENT_DAYS)
    vectors = factors(orders)
    near, closeness = _neighbours(vectors, orders.item_counts)
    return Evidence(
        held,
        weight,
        np.bincount(orders.items, np.repeat(weight, orders.sizes), orders.products),
        late.item_counts / max(late.count, 1),
        _customers(held),
        vectors,
        near,
        closeness,
        catalogue,
        Pairs(*_pairs(held.orders.starts, held.orders.items, held.item_starts, held.item_orders)),
    )


@njit(cache=True)
def _pairs(starts, items, item_starts, item_orders):  # type: ignore[no-untyped-def]
    products = len(item_starts) - 1
    unit = np.ones(len(starts) - 1)
    total, touched = np.zeros(products), np.empty(products, np.int32)
    row_starts = np.zeros(products + 1, np.int64)
    found, orders = np.empty(1024, np.int32), np.empty(1024, np.float32)
    for product in range(products):
        met = count_anchor(product, starts, items, item_starts, item_orders, unit, total, touched)
        first = row_starts[product]
        if first + met > len(found):
            room = 2 * len(found) + met
            found, orders = grown(found, room), grown(orders, room)
        for index in range(met):
            item = touched[index]
            found[first + index] = item
            orders[first + index] = total[item]
            total[item] = 0.0
        row_starts[product + 1] = first + met
    return row_starts, found[: row_starts[products]].copy(), orders[: row_starts[products]].copy()


def _arranged(orders: Orders, by: NDArray[np.int64]) -> Orders:
    sizes = orders.sizes[by]
    starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    places = np.arange(starts[-1]) - np.repeat(starts[:-1] - orders.starts[by], sizes)
    return Orders(starts, orders.items[places], orders.customer[by], orders.day[by], orders.products)


def _customers(held: Postings) -> Floats:
    customer = held.orders.customer[held.item_orders]
    product = np.repeat(np.arange(held.orders.products), np.diff(held.item_starts))
    new = (np.diff(customer, prepend=-1) != 0) | (np.diff(product, prepend=-1) != 0)
    return np.bincount(product[new], minlength=held.orders.products).astype(np.float64)


def factors(orders: Orders) -> Singles:
    """Unit vectors of products from the leading singular vectors of orders × products, each scaled by its root.

    Entries 1 / √(size · n_j) make its square the cosine of products, smaller orders weighing more; randomised subspace
    iteration (Halko, Martinsson & Tropp, SIAM Review 53(2), 2011) with a fixed seed.
    """
    from scipy.sparse import csr_matrix

    counts = np.maximum(orders.item_counts, 1)
    sizes = orders.sizes
    rank = min(FACTORS, orders.products, max(orders.count, 1))
    if not len(orders.items):
        return np.zeros((orders.products, max(rank, 1)), np.float32)
    entries = 1.0 / np.sqrt(np.repeat(sizes, sizes) * counts[orders.items].astype(np.float64))
    matrix = csr_matrix((entries, orders.items, orders.starts), (orders.count, orders.products))
    turned = matrix.T.tocsr()
    basis = np.random.default_rng(SEED).standard_normal((orders.products, rank))
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(turned @ (matrix @ basis))
    _, spread, directions = np.linalg.svd(matrix @ basis, full_matrices=False)
    vectors = basis @ directions.T * np.sqrt(spread)
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _neighbours(vectors: Singles, counts: Ints) -> tuple[Ints, Floats]:
    from spark_jobs.kernels.nearest import nearest

    products = len(vectors)
    near = np.full((products, NEIGHBOURS + 1), -1, np.int32)
    closeness = np.zeros((products, NEIGHBOURS + 1))
    near[:, 0], closeness[:, 0] = np.arange(products), 1.0
    nothing = np.zeros(products, np.int32)
    for item, other, similarity, _, rank in nearest(vectors, nothing, alike=NEIGHBOURS, others=1):
        near[item, rank] = other
        closeness[item, rank] = np.clip(similarity, 0.0, 1.0) ** SHARPNESS
    return near, np.where(near >= 0, closeness, 0.0)


def candidates(known: Evidence, anchors: Ints) -> tuple[Ints, Singles]:
    """Shapes (anchors, WIDTH): candidates of each anchor, -1 after the last, and their share in its neighbours' orders.

    Candidates are products bought with the anchor or with one of its neighbours, and the most popular; best by the
    anchor's own orders and its neighbours' together, some of them with popular products damped.
    """
    orders = known.held.orders
    share = orders.item_counts / max(orders.count, 1)
    return _candidates(
        anchors,
        *known.pairs,
        orders.item_counts.astype(np.float64),
        share,
        np.maximum(share, 1e-12) ** -DAMPING,
        known.neighbours,
        known.closeness,
        popular(orders.item_counts, POPULAR),
        WIDTH,
        TAIL_WIDTH,
        LEAN_NEIGHBOURS,
        LEAN_POPULAR,
    )


@njit(cache=True, nogil=True)
def _candidates(
    anchors,
    pair_starts,
    pair_items,
    pair_orders,
    counts,
    share,
    rarity,
    near,
    closeness,
    well_known,
    width,
    tail_width,
    lean,
    lean_popular,
):  # type: ignore[no-untyped-def]
    products = len(counts)
    own = np.zeros(products)
    around, met_all = np.zeros(products), np.empty(products, np.int32)
    chosen, of_neighbours = np.full((len(anchors), width), -1, np.int32), np.zeros((len(anchors), width), np.float32)
    scores, damped, damped_scores = np.zeros(width), np.empty(width, np.int32), np.zeros(width)
    taken = np.zeros(products, np.bool_)
    for row in range(len(anchors)):
        anchor = anchors[row]
        reached, given = 0, 1e-12
        for place in range(near.shape[1]):
            other = near[anchor, place]
            weight = closeness[anchor, place]
            if other < 0 or weight <= 0.0:
                continue
            scale = weight / (1.0 + counts[other] / 200.0)
            for index in range(pair_starts[other], pair_starts[other + 1]):
                item = pair_items[index]
                if around[item] == 0.0:
                    met_all[reached] = item
                    reached += 1
                if item != other:
                    around[item] += scale * pair_orders[index]
                elif around[item] == 0.0:
                    around[item] = 1e-9
                if place == 0:
                    own[item] = pair_orders[index]
            given += scale * counts[other]
        for item in well_known:
            if around[item] == 0.0:
                met_all[reached] = item
                reached += 1
                around[item] = 1e-9
        filled, damped_filled = 0, 0
        first = width - tail_width
        for index in range(reached):
            item = met_all[index]
            if item == anchor:
                continue
            score = (own[item] + lean * around[item] / given + lean_popular * share[item]) / (
                counts[anchor] + lean + lean_popular
            )
            if filled < first or score >= scores[first - 1]:
                filled = insert(first, score, counts, item, chosen[row], scores, filled)
        for index in range(filled):
            taken[chosen[row, index]] = True
        for index in range(reached):
            item = met_all[index]
            if item == anchor or taken[item]:
                continue
            score = (own[item] + lean * around[item] / given + lean_popular * share[item]) * rarity[item]
            if damped_filled < tail_width or score >= damped_scores[tail_width - 1]:
                damped_filled = insert(tail_width, score, counts, item, damped, damped_scores, damped_filled)
        for index in range(filled):
            taken[chosen[row, index]] = False
        for index in range(damped_filled):
            chosen[row, filled + index] = damped[index]
        for index in range(filled + damped_filled):
            of_neighbours[row, index] = around[chosen[row, index]] / given
        for index in range(reached):
            item = met_all[index]
            around[item] = 0.0
            own[item] = 0.0
    return chosen, of_neighbours


def figures(known: Evidence, anchors: Ints, chosen: Ints, of_neighbours: Singles, *, min_customers: int = 1) -> Singles:
    """Shape (anchors, WIDTH, figures): the columns NAMES of every candidate; NaN where it cannot be known.

    A pair that fewer than `min_customers` customers bought counts as one that nobody bought together.
    """
    orders, catalogue = known.held.orders, known.catalogue
    counts = orders.item_counts.astype(np.float64)
    table = np.full((*chosen.shape, len(NAMES)), np.nan, np.float32)
    walked = (orders.starts, orders.items, known.held.item_starts, known.held.item_orders)
    fine, parent = catalogue.category[0], catalogue.category[1]
    _own(
        anchors,
        chosen,
        *walked,
        orders.customer,
        known.weight,
        counts,
        known.decayed,
        known.customers,
        fine,
        min_customers,
        table,
    )
    table[:, :, NAMES.index("neighbours")] = of_neighbours
    for column, level in (("category", fine), ("parent_category", parent)):
        _of_group(
            *known.pairs,
            level,
            anchors,
            chosen,
            table[:, :, NAMES.index(column)],
            fine,
            table[:, :, NAMES.index("category_need")],
            column == "category",
        )
    _products(known, counts, anchors, chosen, table)
    category = table[:, :, NAMES.index("category")]
    lean = np.where(np.isnan(category), 0.0, LEAN_CATEGORY)
    table[:, :, NAMES.index("smoothed")] = (
        table[:, :, NAMES.index("together")]
        + LEAN_NEIGHBOURS * of_neighbours
        + lean * np.nan_to_num(category)
        + LEAN_POPULAR * table[:, :, NAMES.index("popularity")]
    ) / (counts[anchors][:, None] + LEAN_NEIGHBOURS + lean + LEAN_POPULAR)
    return table


def _products(known: Evidence, counts: Floats, anchors: Ints, chosen: Ints, table: Singles) -> None:
    """The columns that are figures of one product or compare two."""
    catalogue, orders = known.catalogue, known.held.orders
    item, anchor = np.maximum(chosen, 0), anchors[:, None]
    share = counts / max(orders.count, 1)

    def put(name: str, values: NDArray[np.generic]) -> None:
        table[:, :, NAMES.index(name)] = values

    put("popularity", share[item])
    put("recent_popularity", known.recent[item])
    put("orders_anchor", np.log1p(counts[anchor]))
    fine = catalogue.category[0]
    size = np.bincount(fine[fine >= 0], counts[fine >= 0], int(fine.max(initial=0)) + 1)
    put("share_of_category", np.where(fine[item] >= 0, counts[item] / np.maximum(size[fine[item]], 1), np.nan))
    same = np.zeros(chosen.shape)
    for level in catalogue.category:
        same += (level[item] == level[anchor]) & (level[item] >= 0)
    put("same", np.where(fine[anchor] < 0, np.nan, same))
    brand = catalogue.brand
    put("same_brand", np.where((brand[item] < 0) | (brand[anchor] < 0), np.nan, brand[item] == brand[anchor]))
    price = np.log(np.where(catalogue.price > 0, catalogue.price, np.nan))
    put("price_ratio", price[item] - price[anchor])
    put("price", price[item] - (np.nanmedian(price) if np.isfinite(price).any() else 0.0))
    put("alike", np.einsum("awf,af->aw", known.vectors[item], known.vectors[anchors]))
    together = table[:, :, NAMES.index("together")]
    put("lift", np.log((together + 0.5) / (counts[anchor] * share[item] + 0.5)))


@njit(cache=True, nogil=True)
def _own(
    anchors,
    chosen,
    starts,
    items,
    item_starts,
    item_orders,
    customer,
    weight,
    counts,
    decayed,
    buyers,
    fine,
    min_customers,
    table,
):  # type: ignore[no-untyped-def]
    products = len(counts)
    total, recent, small = np.zeros(products), np.zeros(products), np.zeros(products)
    people, last = np.zeros(products), np.full(products, -1, np.int32)
    touched = np.empty(products, np.int32)
    need = np.zeros(fine.max() + 2)
    for row in range(len(anchors)):
        anchor = anchors[row]
        met, size = 0, 0.0
        for place in range(item_starts[anchor], item_starts[anchor + 1]):
            order = item_orders[place]
            others = starts[order + 1] - starts[order] - 1
            size += np.log1p(others)
            for line in range(starts[order], starts[order + 1]):
                item = items[line]
                if total[item] == 0.0:
                    touched[met] = item
                    met += 1
                total[item] += 1.0
                recent[item] += weight[order]
                if others > 0:
                    small[item] += 1.0 / others
                if last[item] != customer[order]:
                    last[item] = customer[order]
                    people[item] += 1.0
                if item != anchor:
                    need[fine[item] + 1] += 1.0
        for index in range(chosen.shape[1]):
            item = chosen[row, index]
            if item < 0:
                break
            if people[item] < min_customers:
                total[item] = recent[item] = small[item] = people[item] = 0.0
            table[row, index, 0] = total[item]
            table[row, index, 1] = total[item] / counts[anchor]
            table[row, index, 2] = total[item] / counts[item]
            table[row, index, 3] = recent[item] / (decayed[anchor] + 1.0)
            if fine[item] >= 0:
                table[row, index, 10] = need[fine[item] + 1] / counts[anchor]
            table[row, index, 19] = small[item] / counts[anchor]
            table[row, index, 20] = size / counts[anchor]
            table[row, index, 21] = people[item] / (buyers[anchor] + 1.0)
        for index in range(met):
            item = touched[index]
            total[item] = 0.0
            recent[item] = 0.0
            small[item] = 0.0
            people[item] = 0.0
            last[item] = -1
            need[fine[item] + 1] = 0.0


@njit(cache=True, nogil=True)
def _of_group(pair_starts, pair_items, pair_orders, group, anchors, chosen, column, fine, need, with_need):  # type: ignore[no-untyped-def]
    """Share of the orders of all products of the anchor's group that hold the candidate; NaN without a group."""
    products = len(group)
    groups = group.max() + 1
    by_group = np.argsort(group, kind="mergesort")
    rows = np.argsort(group[anchors], kind="mergesort")
    sums, reached = np.zeros(products), np.empty(products, np.int32)
    needs = np.zeros(fine.max() + 2)
    member, row = 0, 0
    while member < products and group[by_group[member]] < 0:
        member += 1
    while row < len(anchors) and group[anchors[rows[row]]] < 0:
        row += 1
    for each in range(groups):
        wanted = row < len(anchors) and group[anchors[rows[row]]] == each
        given, far = 1e-12, 0
        while member < products and group[by_group[member]] == each:
            other = by_group[member]
            member += 1
            if not wanted:
                continue
            for index in range(pair_starts[other], pair_starts[other + 1]):
                item = pair_items[index]
                if item == other:
                    given += pair_orders[index]
                    continue
                if sums[item] == 0.0:
                    reached[far] = item
                    far += 1
                sums[item] += pair_orders[index]
        if with_need:
            for index in range(far):
                needs[fine[reached[index]] + 1] += sums[reached[index]]
        while row < len(anchors) and group[anchors[rows[row]]] == each:
            place = rows[row]
            for index in range(chosen.shape[1]):
                item = chosen[place, index]
                if item < 0:
                    break
                column[place, index] = sums[item] / given
                if with_need and fine[item] >= 0:
                    need[place, index] = needs[fine[item] + 1] / given
            row += 1
        for index in range(far):
            needs[fine[reached[index]] + 1] = 0.0
            sums[reached[index]] = 0.0
