"""Measures of association from the 2 × 2 table of a pair: arrays in, arrays of the same shape out.

n orders in all, a with the anchor, b with the companion, c with both; c ≤ a, b ≤ n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def support(c: ArrayLike, n: ArrayLike) -> Floats:
    """P(both) = c / n. Agrawal, Imieliński & Swami, SIGMOD 1993."""
    return _float(c) / _float(n)


def confidence(c: ArrayLike, a: ArrayLike) -> Floats:
    """P(companion | anchor) = c / a. Agrawal, Imieliński & Swami, SIGMOD 1993."""
    return _float(c) / _float(a)


def lift(c: ArrayLike, a: ArrayLike, b: ArrayLike, n: ArrayLike) -> Floats:
    """P(both) / (P(anchor) P(companion)) = c n / (a b). Brin, Motwani, Ullman & Tsur, SIGMOD 1997 (as interest)."""
    return _float(c) * _float(n) / (_float(a) * _float(b))


def npmi(c: ArrayLike, a: ArrayLike, b: ArrayLike, n: ArrayLike) -> Floats:
    """ln(lift) / -ln(support), from -1 (never together) to 1 (only together). Bouma, GSCL 2009.

    Where every order holds both, nothing is told apart: 0. Where none does: -1.
    """
    c, n = _float(c), _float(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(lift(c, a, b, n)) / -np.log(c / n)
    return np.where(c == 0, -1.0, np.where(c == n, 0.0, value))


def llr(c: ArrayLike, a: ArrayLike, b: ArrayLike, n: ArrayLike) -> Floats:
    """Log-likelihood ratio G² = 2 Σ observed ln(observed / expected). Dunning, Computational Linguistics 19(1), 1993.

    Not negative; large for companions far more *or* far less often than chance would have them.
    """
    c, a, b, n = _float(c), _float(a), _float(b), _float(n)
    total = np.zeros(np.broadcast(c, a, b, n).shape)
    for observed, row, column in (
        (c, a, b),
        (a - c, a, n - b),
        (b - c, n - a, b),
        (n - a - b + c, n - a, n - b),
    ):
        with np.errstate(divide="ignore", invalid="ignore"):
            part = observed * np.log(observed * n / (row * column))
        total += np.where(observed > 0, part, 0.0)
    return np.maximum(2 * total, 0.0)


def _float(values: ArrayLike) -> Floats:
    return np.asarray(values, np.float64)
