"""Cohorts of customers who buy alike: k-means over what they buy, in centres and names that last from build to build.

A customer is a point: the square roots of the shares that features (products, or categories) have in what they bought,
so that distances are Hellinger's, and a rare feature counts for more than its share (Legendre & Gallagher, Oecologia
129, 2001). Lloyd's algorithm (IEEE Trans. Inf. Theory 28(2), 1982) from k-means++ starts (Arthur & Vassilvitskii, SODA
2007). Centres are told apart from those of an earlier build by the assignment of least distance (Kuhn, Naval Research
Logistics 2, 1955).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from spark_jobs.kernels.cells import Ints

Floats = NDArray[np.float64]

STARTS, ROUNDS, SEED = 4, 60, 17
BETTER = 0.98
"""Fresh centres replace those that go on from the earlier build only below this share of their inertia."""
SAME = 0.5
"""A centre is the earlier one if it moved by less than this share of the way to the nearest other earlier centre."""
NAME_LENGTH = 32


def points(bought: NDArray[np.float64]) -> Floats:
    """Square roots of the shares in each row of `bought`, shape (customers, features); a row of nothing is all 0."""
    total = bought.sum(1, keepdims=True)
    shares: Floats = np.sqrt(bought / np.where(total > 0, total, 1.0))
    return shares


def distances(points: Floats, centres: Floats) -> Floats:
    """Squared distances, shape (points, centres), not negative."""
    cross = points @ centres.T
    return np.maximum((points**2).sum(1)[:, None] - 2 * cross + (centres**2).sum(1), 0.0)


def fit(points: Floats, count: int, *, smallest: int, start: Floats | None = None) -> tuple[Floats, float]:
    """At most `count` centres of `points`, each with at least `smallest` points, and their inertia.

    From `start` (centres of earlier days in the same features), else the best of STARTS fresh starts. There are none,
    and the inertia is infinite, where not even two can be. The same points in the same order give the same centres.
    """
    nothing = np.empty((0, points.shape[1])), np.inf
    count = min(count, len(points) // max(smallest, 1))
    if count < 2:
        return nothing
    draws = np.random.default_rng(SEED)
    starts = [start] if start is not None else [_spread(points, count, draws) for _ in range(STARTS)]
    found = [_lloyd(points, each, smallest) for each in starts if len(each)]
    return min(found, key=lambda fitted: fitted[1]) if found else nothing


def _spread(points: Floats, count: int, draws: np.random.Generator) -> Floats:
    """A k-means++ start: each next centre is drawn by its squared distance to those before."""
    chosen = [int(draws.integers(len(points)))]
    away = distances(points, points[chosen])[:, 0]
    while len(chosen) < count:
        total = away.sum()
        chosen.append(int(draws.choice(len(points), p=away / total)) if total > 0 else int(draws.integers(len(points))))
        away = np.minimum(away, distances(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def _lloyd(points: Floats, centres: Floats, smallest: int) -> tuple[Floats, float]:
    """Centres at rest, and their inertia; the smallest is given up as long as it has fewer than `smallest` points."""
    while True:
        for _ in range(ROUNDS):
            nearest = distances(points, centres).argmin(1)
            moved = _means(points, nearest, centres)
            if np.allclose(moved, centres, atol=1e-9):
                break
            centres = moved
        away = distances(points, centres)
        sizes = np.bincount(away.argmin(1), minlength=len(centres))
        if sizes.min() >= smallest or len(centres) == 1:
            return centres, float(away.min(1).sum())
        centres = np.delete(centres, int(sizes.argmin()), axis=0)


def _means(points: Floats, nearest: NDArray[np.intp], centres: Floats) -> Floats:
    sizes = np.bincount(nearest, minlength=len(centres))
    member = np.zeros((len(centres), len(points)))
    member[nearest, np.arange(len(points))] = 1.0
    return np.where(sizes[:, None] > 0, member @ points / np.maximum(sizes, 1)[:, None], centres)


def assign(points: Floats, centres: Floats, before: Ints, stickiness: float) -> Ints:
    """Each point's centre, shape (points); -1 for a point that is nothing but zeros.

    `before` (shape (points)) is the centre a customer had, -1 for none: it stays unless another is nearer by more than
    the share `stickiness`, so that customers near a border do not go to and fro with every day's data.
    """
    if not len(centres):
        return np.full(len(points), -1, np.int32)
    away = distances(points, centres)
    found = away.argmin(1)
    held = np.flatnonzero(before >= 0)
    stays = held[away[held, before[held]] <= away[held].min(1) * (1 + stickiness)]
    found[stays] = before[stays]
    return np.where(points.any(1), found, -1).astype(np.int32)


def match(centres: Floats, earlier: Floats, moved: float = SAME) -> Ints:
    """The earlier centre that each centre is, shape (centres); -1 for one that is new. Both in the same features.

    `moved`: how far it may have moved, as a share of the way to the nearest other earlier centre.
    """
    found = np.full(len(centres), -1, np.int32)
    if not len(centres) or not len(earlier):
        return found
    away = np.sqrt(distances(centres, earlier))
    rows, columns = linear_sum_assignment(away)
    apart = np.sqrt(distances(earlier, earlier))
    np.fill_diagonal(apart, np.inf)
    near = apart.min(1) if len(earlier) > 1 else np.array([np.sqrt((earlier**2).sum())])
    same = away[rows, columns] <= moved * near[columns]
    found[rows[same]] = columns[same]
    return found


def names(centres: Floats, labels: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """A name for each centre that a person understands: the label in which it is most unlike all centres together.

    `labels` (one a feature) may repeat: features of one label are taken together. No two centres get the same name, and
    none one of `taken`; which label goes to which centre is the assignment that tells most in all.
    """
    slugs = [slug(label) for label in labels]
    known = sorted(set(slugs) - set(taken) - {""})
    found = [""] * len(centres)
    shares = np.zeros((len(centres), len(known)))
    for column, name in enumerate(known):
        shares[:, column] = (centres**2)[:, [mine == name for mine in slugs]].sum(1)
    telling = np.sqrt(shares) - np.sqrt(shares.mean(0))
    for row, column in zip(*linear_sum_assignment(-telling), strict=True):
        found[row] = known[column]
    return _numbered(found, set(taken))


def _numbered(found: list[str], taken: set[str]) -> list[str]:
    """Centres that no label was left for are numbered."""
    given = set(found) | taken
    free = (f"cohort-{number}" for number in range(1, 2 * len(given) + len(found) + 2))
    return [name or next(each for each in free if each not in given) for name in found]


def slug(label: str) -> str:
    """`label` as the name of a segment: at most 32 of a-z 0-9 -, cut between words where it can be."""
    words = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    if len(words) <= NAME_LENGTH:
        return words
    cut = words[: NAME_LENGTH + 1].rpartition("-")[0]
    return cut or words[:NAME_LENGTH]
