"""Were offers taken? Each listed bundle is asked for in the later orders that hold its anchor: is all of it there?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels import cells, mining, offering, protocol
from spark_jobs.kernels.cells import Cell, Ints
from spark_jobs.kernels.protocol import Estimate, Measure
from spark_jobs.kernels.sets import ABSENT, LARGEST, frequent_sets
from spark_jobs.kernels.shop import Floats, Shop
from tandem.rules import Rules
from tandem.segments import ALL

GLOBAL = offering.LEVELS.index("global")
NORMAL_95 = 1.959964
"""Quantile of the normal distribution for a 95 % interval."""
Counts = NDArray[np.int64]


class Asked(NamedTuple):
    """What became of offers in later orders."""

    asked: Counts
    """Shape (offers,): later orders that hold the anchor."""
    completed: Counts
    """Shape (offers,): those that hold the whole bundle."""
    asked_by: Counts
    """Shape (customers,): times that an order of the customer was asked, over all offers."""
    completed_by: Counts
    served_by: Counts
    """Shape (customers,): anchors in orders of the customer that have an offer at all."""
    taken_by: Counts
    """Shape (customers,): those of which at least one offer was completed."""
    expected_by: Floats
    """Shape (customers,): offers that would have been completed by chance."""


def ask(later: Cell, number: Ints, anchor: Ints, items: Ints, chance: Floats | None = None) -> Asked:
    """Ask `later` orders about offers of `items` (shape (offers, 4), -1 fills) by `anchor`, offers of one together.
    `chance` (shape (offers,); default 0) is the share of orders with the anchor that would hold the rest by chance.

    `number` (shape (products,)) is the later cell's number of each product, -1 where no later order holds it.
    """
    customers = int(later.order_customer.max(initial=-1)) + 1
    wanted = np.where(items >= 0, number[items], -2).astype(np.int32)
    return Asked(
        *_ask(
            later.order_starts,
            later.order_items,
            later.order_customer,
            later.item_starts,
            later.item_orders,
            number[anchor],
            wanted,
            np.zeros(len(anchor)) if chance is None else chance,
            customers,
        )
    )


@njit(cache=True)
def _ask(order_starts, order_items, order_customer, item_starts, item_orders, anchor, wanted, chance, customers):  # type: ignore[no-untyped-def]
    offers = len(anchor)
    asked, completed = np.zeros(offers, np.int64), np.zeros(offers, np.int64)
    asked_by, completed_by = np.zeros(customers, np.int64), np.zeros(customers, np.int64)
    served_by, taken_by = np.zeros(customers, np.int64), np.zeros(customers, np.int64)
    expected_by = np.zeros(customers)
    held = np.zeros(len(item_starts), np.bool_)
    first = 0
    while first < offers:
        last = first
        while last < offers and anchor[last] == anchor[first]:
            last += 1
        item = anchor[first]
        for posting in range(item_starts[item], item_starts[item + 1]) if item >= 0 else range(0):
            order = item_orders[posting]
            customer = order_customer[order]
            for line in range(order_starts[order], order_starts[order + 1]):
                held[order_items[line]] = True
            any_taken = False
            for offer in range(first, last):
                whole = True
                for part in wanted[offer]:
                    if part == -1 or (part >= 0 and not held[part]):
                        whole = False
                asked[offer] += 1
                asked_by[customer] += 1
                expected_by[customer] += chance[offer]
                if whole:
                    completed[offer] += 1
                    completed_by[customer] += 1
                    any_taken = True
            served_by[customer] += 1
            if any_taken:
                taken_by[customer] += 1
            for line in range(order_starts[order], order_starts[order + 1]):
                held[order_items[line]] = False
        first = last
    return asked, completed, asked_by, completed_by, served_by, taken_by, expected_by


BEST = 50
"""Bundles that are asked for as the best of all."""
BEST_K = 50
"""Distinct customers that these rest on."""
BINS = 8
"""Steps of the calibration curve, of equally many offers."""


def measured(orders: pa.Table, shop: Shop, rules: Rules, *, region: str, k: int) -> list[Measure]:
    """What later orders say of bundles learned from earlier ones; `orders` has customer, skus and day (see protocol).

    attach_rate: each of the BEST bundles that rest on BEST_K customers is asked for at each of its products: the share
    of later orders with that product that hold the whole bundle. lift_over_chance: how many times as many as if its
    products were bought independently of each other. Both also for the BEST pairs by cosine and by the damped
    confidence (`score`). With `k` customers: anchors_covered, the known products that have a list; served, the later
    anchors that have one; taken, those of which an offer was completed; calibration, what share was seen of offers of
    which `x` was expected, and its error, the mean distance weighted by what was asked.
    """
    days = np.unique(orders["day"].to_numpy())
    cut = days[min(int(len(days) * protocol.LEARNED_SHARE), len(days) - 1)]
    later_orders = orders.filter(pc.greater_equal(orders["day"], pa.scalar(cut)))
    sizes = pc.list_value_length(later_orders["skus"])
    inside = pc.and_(pc.greater_equal(sizes, protocol.SMALLEST), pc.less_equal(sizes, protocol.LARGEST))
    later_orders = later_orders.filter(inside)
    learned_orders = orders.filter(pc.less(orders["day"], pa.scalar(cut)))
    if not len(later_orders) or not len(learned_orders):
        return []
    learned, later = (cells.cell(part["customer"], part["skus"]) for part in (learned_orders, later_orders))
    trial = _Trial(learned, later, shop, rules, region)
    found = {**trial.of_the_best(), **trial.of_all(k)}
    return [Measure(region, ALL, name, *value) for name, value in found.items()]


@dataclass(frozen=True)
class _Trial:
    learned: Cell
    later: Cell
    shop: Shop
    rules: Rules
    region: str

    def offers(self, k: int) -> offering.Offers:
        """As a region's own lists would be, had the orders learned from been all that is known."""
        sets = mining.mined(self.learned, self.shop, self.rules, region=self.region, segment=ALL, k=k)
        return offering.offers({GLOBAL: sets}, self.shop, self.rules, offering.Window(self.region, ALL, k))

    def asked(self, anchor: Ints, items: Ints, chance: Floats | None = None) -> Asked:
        number = pc.fill_null(pc.index_in(self.shop.skus, self.later.skus), -1).to_numpy(zero_copy_only=False)
        return ask(self.later, number.astype(np.int32), anchor, items, chance)

    def of_the_best(self) -> dict[str, Estimate]:
        pool = self.offers(BEST_K).pool
        named = {"bundles": pool.items[offering.best(pool, BEST)], **self._textbook()}
        return {name: value for subject, items in named.items() for name, value in self._attached(items, subject)}

    def _attached(self, items: Ints, subject: str) -> Iterator[tuple[str, Estimate]]:
        """Of bundles (shape (bundles, 4)), each product in turn the anchor."""
        row, spot = np.nonzero(items >= 0)
        order = np.argsort(items[row, spot], kind="stable")
        anchor, items = items[row, spot][order], items[row][order]
        found = self.asked(anchor, items, self._chance(anchor, items))
        yield f"attach_rate/{subject}", (attached := ratio(found.completed_by, found.asked_by))
        lift = ratio(found.completed_by, found.expected_by)
        yield f"lift_over_chance/{subject}", lift._replace(queries=attached.queries)

    def _textbook(self) -> dict[str, Ints]:
        """The BEST pairs by cosine and by the damped confidence, without any rule: what bundles are held against."""
        number, counts = self.shop.numbers(self.learned.skus), self.learned.item_counts.astype(np.float64)
        pairs = frequent_sets(self.learned, min_orders=1, min_customers=BEST_K, max_components=2, usable=number >= 0)
        rarer, other = (np.sort(counts[pairs.items[:, :2]], axis=1)[:, place] for place in (0, 1))
        scores = {
            "cosine": pairs.orders / np.sqrt(rarer * other),
            "score": pairs.orders / (rarer * other**self.rules.learning.popularity_damping),
        }
        best = {name: np.argsort(-score, kind="stable")[:BEST] for name, score in scores.items()}
        return {name: np.where(pairs.items >= 0, number[pairs.items], ABSENT)[held] for name, held in best.items()}

    def _chance(self, anchor: Ints, items: Ints) -> Floats:
        """Shape (offers,): what share of orders would hold the companions if they were bought independently."""
        share = np.zeros(len(self.shop.skus))
        place = self.shop.numbers(self.later.skus)
        share[place[place >= 0]] = self.later.item_counts[place >= 0] / self.later.orders
        companions = (items >= 0) & (items != anchor[:, None])
        return np.where(companions, share[items], 1.0).prod(1)

    def of_all(self, k: int) -> dict[str, Estimate]:
        offers = self.offers(k)
        found = self.asked(offers.anchor, offers.pool.items[offers.bundle])
        known = self.shop.numbers(self.learned.skus) >= 0
        known &= self.learned.item_counts >= protocol.MIN_ORDERS
        place = self.shop.numbers(self.learned.skus)[known]
        covered = float(np.isin(place, offers.anchor).mean()) if len(place) else 0.0
        alone = np.full((len(place), LARGEST), ABSENT, np.int32)
        alone[:, 0] = place
        every = self.asked(place, alone)
        return {
            "anchors_covered/bundles": Estimate(covered, covered, covered, len(place)),
            "served/bundles": ratio(found.served_by, every.served_by),
            "taken/bundles": ratio(found.taken_by, found.served_by),
            **_calibration(offers.expected, found),
        }


def _calibration(expected: Floats, found: Asked) -> dict[str, Estimate]:
    """The share seen at each step of the share expected, and how far apart the two are on average."""
    if not found.asked.sum():
        return {}
    edges = np.quantile(expected, np.linspace(0, 1, BINS + 1)[1:-1])
    step = np.searchsorted(edges, expected, side="right")
    asked, seen, wanted = (
        np.bincount(step, weights, BINS) for weights in (found.asked, found.completed, expected * found.asked)
    )
    error = float(np.abs(wanted - seen).sum() / asked.sum())
    curve = {"calibration_error/bundles": Estimate(error, error, error, int(asked.sum()))}
    for bin_ in np.flatnonzero(asked):
        low, high = wilson(seen[bin_], asked[bin_])
        name = f"calibration/bundles@expected={wanted[bin_] / asked[bin_]:.3f}"
        curve[name] = Estimate(float(seen[bin_] / asked[bin_]), low, high, int(asked[bin_]))
    return curve


def wilson(done: float, asked: float) -> tuple[float, float]:
    """95 % interval of a share. Wilson, JASA 22, 1927."""
    share, z2n = done / asked, NORMAL_95**2 / asked
    spread = NORMAL_95 * float(np.sqrt((share * (1 - share) + z2n / 4) / asked))
    middle, scale = share + z2n / 2, 1 + z2n
    return float(max((middle - spread) / scale, 0.0)), float(min((middle + spread) / scale, 1.0))


def ratio(done_by: Floats | Counts, asked_by: Floats | Counts) -> Estimate:
    """Σ done / Σ asked with its 95 % interval, customers drawn with replacement. Shapes (customers,)."""
    asked_at = np.flatnonzero(asked_by)
    done, asked = done_by[asked_at].astype(np.float64), asked_by[asked_at].astype(np.float64)
    if not len(asked):
        return Estimate(0.0, 0.0, 0.0, 0)
    draws = np.random.default_rng(protocol.SEED)
    ratios = np.empty(protocol.RESAMPLES)
    for resample in range(protocol.RESAMPLES):
        times = np.bincount(draws.integers(0, len(asked), len(asked)), minlength=len(asked))
        ratios[resample] = done @ times / (asked @ times)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Estimate(float(done.sum() / asked.sum()), float(low), float(high), round(float(asked.sum())))
