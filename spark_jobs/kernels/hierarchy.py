"""Estimates of many small groups, drawn toward what they are part of: empirical Bayes in a tree.

Each node's own estimate y ± s is one draw around its true value θ, and the θ of siblings are draws around a common
centre with spread τ: θ | y is the precision-weighted mean of both. τ is of a whole level of the tree, by Paule & Mandel
(J. Res. NBS 87, 1982). Efron & Morris, JASA 70, 1975; Morris, JASA 78, 1983.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW = 5
"""With fewer degrees of freedom than this a level's spread is not estimated."""
SPREAD = 1.0
"""What is taken for it then."""
WIDEST = 10.0
LEAST = 1e-3
"""Of a level's spread, where it is used to divide."""


class Shrunk(NamedTuple):
    value: Floats
    error: Floats


def shrink(own: Floats, error: Floats, parent: Ints, level: Ints, root: tuple[float, float]) -> Shrunk:
    """The posterior mean and error of every node.

    `own` ± `error` are the nodes' own estimates (NaN where there is none), `parent` the index of each node's parent
    (-1: none), `level` 0 for nodes without parent, else more than the parent's. `root` is the prior mean and standard
    deviation of nodes without parent. Other nodes are drawn to their siblings' mean, their parent counted as one more.
    """
    value, spread = np.full(len(own), root[0]), np.full(len(own), root[1])
    top = level == 0
    known = top & np.isfinite(own) & np.isfinite(error)
    value[known], spread[known] = _drawn(own[known], error[known], root[0], 0.0, root[1] ** 2)
    for depth in np.unique(level[~top]):
        here = np.flatnonzero(level == depth)
        known = here[np.isfinite(own[here]) & np.isfinite(error[here])]
        tau2 = heterogeneity(own[known], error[known] ** 2, parent[known])
        weight = 1 / (error[known] ** 2 + tau2)
        prior = 1 / (spread**2 + max(tau2, LEAST**2))
        precision = prior + np.bincount(parent[known], weight, len(own))
        centre = (prior * value + np.bincount(parent[known], weight * own[known], len(own))) / precision
        above = parent[here]
        value[here], spread[here] = centre[above], np.sqrt(1 / precision[above] + tau2)
        above = parent[known]
        value[known], spread[known] = _drawn(own[known], error[known], centre[above], 1 / precision[above], tau2)
    return Shrunk(value, spread)


def toward(own: Floats, error: Floats, whole: Floats, whole_error: Floats, group: Ints) -> Shrunk:
    """Parts of a whole (a category in each region) drawn to the estimate of the whole, `group` telling whose part.

    Where parts do not differ beyond chance, each gets the whole's estimate.
    """
    known = np.isfinite(own) & np.isfinite(error)
    tau2 = heterogeneity(own[known], error[known] ** 2, group[known])
    value, spread = whole.copy(), np.sqrt(whole_error**2 + tau2)
    value[known], spread[known] = _drawn(own[known], error[known], whole[known], whole_error[known] ** 2, tau2)
    return Shrunk(value, spread)


def _drawn(own: Floats, error: Floats, centre: Floats | float, variance: Floats | float, tau2: float) -> Shrunk:
    """y drawn to a centre: μ + B (y - μ), B = τ² / (τ² + s²), with variance B s² + (1 - B)² Var(μ) (Morris 1983)."""
    pull = tau2 / (tau2 + error**2)
    return Shrunk(centre + pull * (own - centre), np.sqrt(pull * error**2 + (1 - pull) ** 2 * variance))


def mean(own: Floats, error: Floats) -> tuple[float, float]:
    """The mean of one group that differs by more than chance, and its error; NaN where the group is empty."""
    if not len(own):
        return float("nan"), float("nan")
    weight = 1 / (error**2 + heterogeneity(own, error**2, np.zeros(len(own), np.int64)))
    return float((weight * own).sum() / weight.sum()), float(weight.sum() ** -0.5)


def heterogeneity(value: Floats, variance: Floats, group: Ints) -> float:
    """τ² between the true values of a group, common to all groups: where Cochran's Q equals its degrees of freedom."""
    _, code = np.unique(group, return_inverse=True)
    free = len(value) - (int(code.max()) + 1 if len(code) else 0)
    if free < FEW:
        return SPREAD**2
    low, high = 0.0, WIDEST**2
    if _cochran(value, variance, code, low) <= free:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        if _cochran(value, variance, code, middle) > free:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _cochran(value: Floats, variance: Floats, code: Ints, tau2: float) -> float:
    weight = 1 / (variance + tau2)
    mean = np.bincount(code, weight * value) / np.bincount(code, weight)
    return float((weight * (value - mean[code]) ** 2).sum())
