"""How deep a bundle's discount goes: the depth that is expected to earn most, if it earns at all.

A set with prices p_j, unit costs k_j and elasticities e_j was bought whole by c orders; n_i orders held component i, on
whose page the set is offered. A discount of D is given to whoever takes the set. Those c would have bought it anyway:
c D is lost. Of the n_i others are won: with q_i = c / n_i, R_i what the rest of the set costs, and e_i its elasticity
(mean of its components', weighted by price), the odds of taking the rest grow with its lower price,

    logit q_i(D) = logit q_i + |e_i| · -ln(1 - D / R_i),     won_i(D) = n_i (q_i(D) - q_i) l^-u,
    gain(D) = Σ_i won_i(D) · ((1 - w) M_i - D) - c D,        M_i = margin of the rest,

where w is the share of what is won that another product of the shop loses (a third: van Heerde, Gupta & Wittink, JMR
40, 2003), l the lift of the set for each further component, and u between 0 and 1. If all who take the set weigh each
component alike, u is 0. If all that they buy together beyond chance is because they need it together, whatever it
costs, only c / l of them weigh prices at all and u is 1. Counts cannot tell these apart. For a small D the gain is
c D (l^-u Σ_i |e_i| (1 - q_i) (1 - w) M_i / R_i - 1), for l = 1 the condition for mixed bundling to pay (McAfee,
McMillan & Whinston, QJE 104, 1989; Venkatesh & Mahajan in Handbook of Pricing Research, 2009). A set often bought whole
has q near 1 or l high: little to win, so it is recommended and not discounted.

Of a pair, those who would buy neither can be won too, by what each side wins, won_a won_b l^u / (2 c) for small D; they
bring both margins. This is of second order in D, but it is what makes a deep discount pay where a shallow one does.

What is not known for sure stays so: gain is taken at DRAWS equally likely states of e (all components' errors pull the
same way, which is the most cautious), of c and of u. Depths are tried from the shallowest on, and only as far as the
gain is positive with the probability asked for; among these the best mean counts. With a higher cost the gain is lower
in every state and at every depth, the more so the deeper: a higher cost never makes a discount deeper (Topkis, 1998).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import special

from tandem.money import BPS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

DRAWS = 64
PLASTIC = 1.324717957244746
LEAST_SHARE = 0.05
"""The rest of a set is never taken to cost less than this share of its price: far below, no elasticity was measured."""
LIKELIEST = 0.999
STATES = np.column_stack(
    [
        special.ndtri((np.arange(DRAWS) + 0.5) / DRAWS),
        special.ndtri((np.arange(DRAWS) / PLASTIC + 0.5) % 1.0),
        (np.arange(DRAWS) / PLASTIC**2 + 0.5) % 1.0,
    ]
)
"""Shape (DRAWS, 3): equally likely states of the elasticities and of the counts (standard normal), and u. The columns
have nothing to do with each other: a lattice by powers of the plastic number, the same in every run."""


class Sets(NamedTuple):
    """Bundles as rows, their components as columns; absent components have price 0. Money in minor units."""

    price: Ints
    """Shape (sets, components): of all units of the component in the set."""
    floor: Ints
    """Below it the component may not be sold."""
    cost: Floats
    elasticity: Floats
    error: Floats
    together: Floats
    """Shape (sets): orders that held the whole set."""
    lift: Floats
    """Shape (sets): how many times more often than by chance one more component is there; below 1 counts as 1."""
    holding: Floats
    """Shape (sets, components): orders that held the component, where the set is offered on its page; else 0."""

    @property
    def total(self) -> Ints:
        return self.price.sum(1)


class Terms(NamedTuple):
    """What a merchandiser asked for."""

    max_bps: int = 1_000
    step_bps: int = 50
    fixed_bps: int = 500
    probability: float = 0.8
    switching: float = 1 / 3
    point_step: int = 1
    point_ending: int = 0
    """The set's price ends so: price = point_ending modulo point_step."""


class Outcome(NamedTuple):
    """What a discount is expected to do; shapes (sets), per order that would hold the whole set without it."""

    gain: Floats
    """Expected profit more than without the discount, minor units."""
    spend: Floats
    """Expected discount given, minor units."""
    probability: Floats
    """That the profit is higher than without."""
    won: Floats
    """Expected further sets sold."""


def depths(total: Ints, terms: Terms) -> Ints:
    """Shape (sets, depths): the discounts to try, ascending, in basis points; the first is 0.

    Steps of `step_bps` to `max_bps`. Where a price has to end in a certain way, each step is the deepest discount that
    leaves a price so ending, not below the step's own: the price that `tandem.money.discounted` makes of it. Of a set
    dearer than 10,000 minor units not every price can be reached: the next reachable one above is taken.
    """
    steps = np.append(np.arange(0, terms.max_bps, terms.step_bps, dtype=np.int64), terms.max_bps)
    wanted = np.broadcast_to(steps, (len(total), len(steps)))
    if terms.point_step <= 1:
        return wanted.copy()
    whole = np.maximum(total, 1)[:, None]
    price = less(whole, wanted)
    point = price + (terms.point_ending - price) % terms.point_step
    bps = np.maximum(whole - point, 0) * BPS // whole
    bps += (less(whole, bps + 1) >= point) & (point < whole)
    bps[:, 0] = 0
    return np.minimum(bps, wanted)


def less(total: Ints, bps: Ints) -> Ints:
    """`tandem.money.discounted` of arrays."""
    return (total * (BPS - bps) * 2 + BPS) // (2 * BPS)


def allowed(sets: Sets, bps: Ints) -> Mask:
    """Shape as `bps`: at this discount no component gets less than its floor, however the edge rounds its parts."""
    total = sets.total[:, None]
    left = less(total, bps)
    fits = np.ones(bps.shape, bool)
    for part in range(sets.price.shape[1]):
        price, floor = sets.price[:, part, None], sets.floor[:, part, None]
        fits &= (price == 0) | (left * price // np.maximum(total, 1) >= floor)
    return fits & (total > 0)


def room(sets: Sets, tried: Ints) -> Ints:
    """Shape (sets): the index of the deepest of the ascending depths `tried` that the floors leave."""
    return np.logical_and.accumulate(allowed(sets, tried[:, 1:]), axis=1).sum(1)


def least(sets: Sets, tried: Ints) -> Ints:
    """The shallowest of the depths `tried` that takes anything off, in basis points; 0 where none does."""
    takes = less(sets.total[:, None], tried) < sets.total[:, None]
    return tried[np.arange(len(tried)), takes.argmax(1)]


def best(sets: Sets, terms: Terms) -> Ints:
    """Discount of each set in basis points: most expected gain, where a gain is likely enough; else 0."""
    tried = depths(sets.total, terms)
    off = sets.total[:, None] - less(sets.total[:, None], tried)
    choice = _best(off, room(sets, tried), *_rests(sets), *_counts(sets), *_constants(terms))
    return tried[np.arange(len(tried)), choice]


def none(sets: Sets, terms: Terms) -> Ints:
    """No discount."""
    return np.zeros(len(sets.together), np.int64)


def fixed(sets: Sets, terms: Terms) -> Ints:
    """`fixed_bps` for every set, less where floors or price points ask for it."""
    tried = depths(sets.total, terms._replace(max_bps=min(terms.fixed_bps, terms.max_bps)))
    return tried[np.arange(len(tried)), room(sets, tried)]


Strategy = Callable[[Sets, Terms], Ints]
STRATEGIES: dict[str, Strategy] = {"none": none, "fixed": fixed, "profit": best, "clear_stock": best}
"""By name in rules.toml. `clear_stock` is `profit` with what has to go costing less (see `pressing`)."""


def pressing(cost: Floats, on_hand: Floats, daily_units: Floats, cover_days: float, salvage: float) -> Floats:
    """Unit costs as clearing stock sees them: of what lasts longer than `cover_days`, only the share `salvage`.

    What was paid for goods that will not sell in time is spent; what counts is what else they would still bring.
    """
    return np.where(on_hand > cover_days * daily_units, salvage * cost, cost)


def outcome(sets: Sets, bps: Ints, terms: Terms) -> Outcome:
    """What the discount `bps` (shape (sets)) does."""
    off = sets.total - less(sets.total, bps)
    return Outcome(*_outcome(off, *_rests(sets), *_counts(sets), *_constants(terms)).T)


def gains(sets: Sets, bps: Ints, terms: Terms) -> Floats:
    """Shape (sets, DRAWS): the gain of the discount `bps` in each state, as `Outcome.gain`, which is its mean."""
    off = sets.total - less(sets.total, bps)
    found: Floats = _gains(off, *_rests(sets), *_counts(sets), *_constants(terms))
    return found


def within_budget(gain: Floats, spend: Floats, budget: float) -> Mask:
    """Which discounts a budget pays for, most gain for each unit of spend first, as long as it lasts.

    One that does not fit is left out and cheaper ones after it may still fit. Ties go to the earlier row.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        worth = np.where(spend > 0, gain / spend, np.inf)
    return _bought(np.argsort(-worth, kind="stable"), spend, float(budget))


@njit(cache=True)
def _bought(order, spend, budget):  # type: ignore[no-untyped-def]
    taken = np.zeros(len(spend), np.bool_)
    used = 0.0
    for row in order:
        if used + spend[row] <= budget:
            taken[row] = True
            used += spend[row]
    return taken


def _counts(sets: Sets) -> tuple[Floats, Floats, Floats, Mask]:
    """The counts, and which sets are pairs."""
    return sets.together, sets.lift, sets.holding, (sets.price > 0).sum(1) == 2


def _constants(terms: Terms) -> tuple[float, float, Floats]:
    return terms.probability, terms.switching, STATES


def _rests(sets: Sets) -> tuple[Ints, Floats, Floats, Floats]:
    """The set without each component: its price, margin, elasticity and error. Shape (sets, components)."""
    price = sets.price.astype(np.float64)
    rest = sets.total[:, None] - sets.price
    margin = (price - sets.cost).sum(1, keepdims=True, where=price > 0) - (price - sets.cost)
    by_price, by_error = price * sets.elasticity, price * sets.error
    divisor = np.maximum(rest, 1)
    elasticity = (by_price.sum(1, keepdims=True) - by_price) / divisor
    error = (by_error.sum(1, keepdims=True) - by_error) / divisor
    return rest, margin, elasticity, error


@njit(cache=True)
def _gain(  # type: ignore[no-untyped-def]
    row, discount, state, rest, margin, elasticity, error, together, lift, holding, pair, switching, states
):
    """Gain and sets won by one set in one state, per order that held it whole."""
    spread = 1 / np.sqrt(together[row] + 0.5)
    factor = np.exp(states[state, 1] * spread - spread * spread / 2)
    weighing = max(lift[row], 1.0) ** -states[state, 2]
    gain = -discount * factor
    won, sides, product, whole = 0.0, 0, 1.0, 0.0
    for part in range(rest.shape[1]):
        held = holding[row, part]
        if held <= 0 or rest[row, part] <= 0:
            continue
        felt = min(elasticity[row, part] + states[state, 0] * error[row, part], 0.0)
        share = min(together[row] / held * factor, LIKELIEST)
        left = max(1 - discount / rest[row, part], LEAST_SHARE)
        odds = share / (1 - share) * left**felt
        more = (odds / (1 + odds) - share) * held / together[row] * weighing
        won += more
        sides += 1
        product *= more
        whole += margin[row, part]
        gain += more * ((1 - switching) * margin[row, part] - discount)
    if pair[row] and sides == 2:
        neither = product / (2 * weighing * factor)
        won += neither
        gain += neither * ((1 - switching) * whole - discount)
    return gain, won, factor


@njit(cache=True)
def _best(  # type: ignore[no-untyped-def]
    off, room, rest, margin, elasticity, error, together, lift, holding, pair, probability, switching, states
):
    choice = np.zeros(len(off), np.int64)
    count = len(states)
    for row in range(len(off)):
        highest = 0.0
        if together[row] <= 0:
            continue
        for depth in range(1, room[row] + 1):
            discount = off[row, depth]
            if discount <= 0:
                continue
            better, mean = 0, 0.0
            for state in range(count):
                gain = _gain(
                    row,
                    discount,
                    state,
                    rest,
                    margin,
                    elasticity,
                    error,
                    together,
                    lift,
                    holding,
                    pair,
                    switching,
                    states,
                )[0]
                better += gain > 0
                mean += gain / count
            if better < probability * count:
                break
            if mean > highest:
                highest = mean
                choice[row] = depth
    return choice


@njit(cache=True)
def _outcome(  # type: ignore[no-untyped-def]
    off, rest, margin, elasticity, error, together, lift, holding, pair, probability, switching, states
):
    found = np.zeros((len(off), 4))
    count = len(states)
    for row in range(len(off)):
        if together[row] <= 0 or off[row] <= 0:
            continue
        for state in range(count):
            gain, won, factor = _gain(
                row, off[row], state, rest, margin, elasticity, error, together, lift, holding, pair, switching, states
            )
            found[row, 0] += gain / count
            found[row, 1] += off[row] * (factor + won) / count
            found[row, 2] += (gain > 0) / count
            found[row, 3] += won / count
    return found


@njit(cache=True)
def _gains(  # type: ignore[no-untyped-def]
    off, rest, margin, elasticity, error, together, lift, holding, pair, probability, switching, states
):
    found = np.zeros((len(off), len(states)))
    for row in range(len(off)):
        if together[row] <= 0 or off[row] <= 0:
            continue
        for state in range(len(states)):
            found[row, state] = _gain(
                row, off[row], state, rest, margin, elasticity, error, together, lift, holding, pair, switching, states
            )[0]
    return found
