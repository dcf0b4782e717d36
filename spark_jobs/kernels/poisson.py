"""Poisson regression with product and week effects: how units sold answer to their price.

E[units of product i in week t] = exp(α_i + γ_t + x_it β), by quasi-maximum likelihood: β is consistent whatever the
distribution of units, as long as the mean is right (Gourieroux, Monfort & Trognon, Econometrica 52, 1984; with effects
of each unit, Wooldridge, Journal of Econometrics 90, 1999). The product effects α_i are concentrated out in closed form
(Hausman, Hall & Griliches, Econometrica 52, 1984), so a Newton step has one unknown a week and one a column of x, and
the work is linear in products. Week effects are drawn to zero by WEEK_PRECISION: in a category that sells thousands of
units a week this changes nothing, in one that sells ten it keeps 52 unknowns from explaining everything.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WEEK_PRECISION = 4.0
"""Of the normal prior on each week's effect: a standard deviation of one half, that is, of ± 50 % in sales."""
COLUMN_PRECISION = 0.01
"""Of the normal prior on each coefficient: wide, it only keeps Newton from running away where columns tell nothing."""
STEPS = 50
HALVINGS = 20
TOLERANCE = 1e-9


class Fit(NamedTuple):
    """Coefficients of the columns, and how far they can be trusted."""

    beta: Floats
    """Shape (columns)."""
    error: Floats
    """Shape (columns): standard errors, the larger of those robust to any dependence within a product (sandwich,
    clustered by product) and those of a Poisson whose variance is dispersion times its mean. With few products the
    sandwich alone is far too sure of itself."""
    products: int
    rows: int
    units: float
    dispersion: float
    """Pearson's χ² over its degrees of freedom; 1 for a Poisson."""


def fit(product: Ints, week: Ints, units: Floats, columns: Floats) -> Fit:
    """Fit rows (product, week, units ≥ 0, columns of shape (rows, columns)) sorted by product.

    Products without any unit tell nothing and count for nothing. Without rows every coefficient is 0 and its error ∞.
    """
    width = columns.shape[1]
    if not len(product) or not units.sum():
        return Fit(np.zeros(width), np.full(width, np.inf), 0, 0, 0.0, 1.0)
    starts = np.append(np.flatnonzero(np.diff(product, prepend=product[0] - 1)), len(product)).astype(np.int64)
    weeks, place = np.unique(week, return_inverse=True)
    within = _centred(columns, starts)
    precision = np.append(np.full(width, COLUMN_PRECISION), np.full(len(weeks), WEEK_PRECISION))
    theta = np.zeros(width + len(weeks))
    place = place.astype(np.int64)
    value, slope, curve, _, _ = _terms(starts, place, units, within, precision, theta)
    for _ in range(STEPS):
        step = np.linalg.solve(curve, slope)
        if slope @ step < TOLERANCE * (1 + abs(value)):
            break
        for _ in range(HALVINGS):
            tried = _terms(starts, place, units, within, precision, theta + step)
            if tried[0] >= value:
                break
            step = step / 2
        theta = theta + step
        value, slope, curve = tried[:3]
    _, _, curve, meat, pearson = _terms(starts, place, units, within, precision, theta)
    inverse = np.linalg.inv(curve)
    products = int((np.add.reduceat(units, starts[:-1]) > 0).sum())
    dispersion = max(1.0, pearson / max(len(units) - products - len(theta), 1))
    robust = inverse @ meat @ inverse * products / max(products - 1, 1)
    error = np.sqrt(np.maximum(np.diag(robust), dispersion * np.diag(inverse)))[:width]
    return Fit(theta[:width], error, products, len(units), float(units.sum()), float(dispersion))


def _centred(columns: Floats, starts: Ints) -> Floats:
    """Each column less its mean within the product: the product's effect takes up the rest."""
    sizes = np.diff(starts)
    means = np.add.reduceat(columns, starts[:-1], axis=0) / sizes[:, None]
    return np.ascontiguousarray(columns - np.repeat(means, sizes, axis=0))


@njit(cache=True)
def _terms(starts, week, units, columns, precision, theta):  # type: ignore[no-untyped-def]
    """Penalised log likelihood but for a constant, its gradient, minus its Hessian, products' scores squared, χ²."""
    width = columns.shape[1]
    size = len(theta)
    value = 0.0
    slope = np.zeros(size)
    curve = np.zeros((size, size))
    meat = np.zeros((size, size))
    pearson = 0.0
    score = np.zeros(size)
    weight = np.zeros(size)
    held = np.zeros(size, np.int64)
    for index in range(size):
        value -= precision[index] * theta[index] ** 2 / 2
        slope[index] = -precision[index] * theta[index]
        curve[index, index] = precision[index]
    longest = 0
    for product in range(len(starts) - 1):
        longest = max(longest, starts[product + 1] - starts[product])
    share = np.zeros(longest)
    for product in range(len(starts) - 1):
        first, last = starts[product], starts[product + 1]
        total = 0.0
        highest = -np.inf
        for row in range(first, last):
            power = theta[width + week[row]]
            for column in range(width):
                power += theta[column] * columns[row, column]
            share[row - first] = power
            total += units[row]
            highest = max(highest, power)
        if total == 0:
            continue
        mass = 0.0
        for row in range(first, last):
            value += units[row] * (share[row - first] - highest)
            share[row - first] = np.exp(share[row - first] - highest)
            mass += share[row - first]
        value -= total * np.log(mass)
        used = width
        for column in range(width):
            held[column] = column
        for row in range(first, last):
            mean = total * share[row - first] / mass
            rest = units[row] - mean
            pearson += rest * rest / max(mean, 1e-12)
            place = width + week[row]
            if weight[place] == 0.0:
                held[used] = place
                used += 1
            weight[place] += mean
            score[place] += rest
            curve[place, place] += mean
            for column in range(width):
                x = columns[row, column]
                weight[column] += mean * x
                score[column] += rest * x
                curve[column, place] += mean * x
                curve[place, column] += mean * x
                for other in range(width):
                    curve[column, other] += mean * x * columns[row, other]
        for left in range(used):
            a = held[left]
            slope[a] += score[a]
            for right in range(used):
                b = held[right]
                curve[a, b] -= weight[a] * weight[b] / total
                meat[a, b] += score[a] * score[b]
        for left in range(used):
            weight[held[left]] = 0.0
            score[held[left]] = 0.0
    return value, slope, curve, meat, pearson
