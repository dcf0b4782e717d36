"""The ranker: trees over figures of pairs, learned from what later orders held, and the five chosen together.

Learning to rank companions as a forecast: figures of a pair come from the earlier days, its target from the later ones
(share of the anchor's later orders that hold the candidate), so that the trees learn which figures keep their word,
not which describe the past best. They correct the smoothed confidence (its log odds are where boosting starts), so that
a shop that teaches nothing is ranked by smoothed confidence. Gradient boosting: Friedman, Annals of Statistics 29(5),
2001; XGBoost: Chen & Guestrin, KDD 2016. How many trees is decided on customers left out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from spark_jobs.kernels import choose, features
from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.features import NAMES, WIDTH, Catalogue, Evidence, Singles
from spark_jobs.kernels.protocol import POPULAR as POPULAR_PRODUCTS
from spark_jobs.kernels.protocol import (
    Mask,
    Orders,
    Trial,
    first_asked_day,
    popular,
    trial_of,
)
from spark_jobs.kernels.threads import THREADS

Floats = NDArray[np.float64]

NOT_USED = ("together", "smoothed", "popularity", "recent_popularity")
USED = tuple(place for place, name in enumerate(NAMES) if name not in NOT_USED)
"""Columns that the trees see: bare counts grow with the orders learned from, the mix is where they start, and
popularity tells the best sold products apart, of which trees learn what became of each and not what holds for all."""
STEADY, LEAN_STEADY = 1.65, 50.0
"""A product that sells so many times as often as before, or as seldom (leaning on so many orders), teaches nothing."""
TRAINING_ROWS = 600_000
"""At most so many pairs are learned from: 14 MB of figures for every 100,000."""
MIN_QUERIES = 2_000
"""With fewer questions to learn from, smoothed confidence stands."""
ROUNDS, PATIENCE = 160, 15
LEFT_OUT = 4
"""One customer in so many decides when to stop."""
PARAMETERS: dict[str, Any] = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 5,
    "eta": 0.1,
    "min_child_weight": 20,
    "max_bin": 128,
    "base_score": 0.5,
    "seed": 3,
    "nthread": THREADS,
}
BLOCK = 2_048
"""Anchors whose figures a thread holds at once: about 19 MB."""
LEAST, MOST = 1e-6, 1 - 1e-6


class Ranked(NamedTuple):
    """The best companions of anchors. All but `anchors` of shape (anchors, kept), -1 or NaN after the last."""

    anchors: Ints
    companions: Ints
    probability: Floats
    figures: Singles
    """Shape (anchors, kept, figures): see `features.NAMES`."""


def train(orders: Orders, catalogue: Catalogue, *, min_orders: int, rows: int = TRAINING_ROWS) -> bytes | None:
    """A model from orders (in products as `catalogue` numbers them), in XGBoost's UBJSON; None if nothing is learned.

    Figures come from the first 80 % of the days, targets from the rest. The same orders give the same bytes.
    """
    cut = first_asked_day(orders.day)
    trial = trial_of(orders.where(orders.day < cut), orders.where(orders.day >= cut), min_orders=min_orders)
    if len(trial.asked.anchor) < MIN_QUERIES:
        return None
    known = features.evidence(trial.learned, catalogue.of(trial.known))
    asked_for = np.unique(trial.asked.anchor).astype(np.int32)
    most = max(rows // WIDTH, 1)
    chance = np.random.default_rng(features.SEED)
    anchors = asked_for if len(asked_for) <= most else np.sort(chance.choice(asked_for, most, replace=False))
    chosen, around = features.candidates(known, anchors)
    table = features.figures(known, anchors, chosen, around)
    row = np.full(len(trial.known), -1, np.int64)
    row[anchors] = np.arange(len(anchors))
    left_out = _hash(trial.asked.customer) % LEFT_OUT == 0
    parts = [kept_in(*trial.asked[:2], row, chosen, which) for which in (~left_out, left_out)]
    with threadpool_limits(THREADS, "openmp"):  # Spark tells its workers to use one
        return _fit(table, _steady(trial)[chosen] & (chosen >= 0), *parts)


def _steady(trial: Trial) -> Mask:
    """Shape (known products): whose share of what was sold is about the same in the orders that are asked about.

    What became of one product (delisted, in season, on sale) is no rule for pairs, and trees would take it for one.
    """
    before, after = trial.learned.item_counts, np.bincount(trial.asked.anchor, minlength=len(trial.known))
    expected = before * (after.sum() / max(before.sum(), 1))
    change = (after + LEAN_STEADY) / (expected + LEAN_STEADY)
    return (change > 1 / STEADY) & (change < STEADY)


def _hash(number: Ints) -> NDArray[np.uint64]:
    return (number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)


@njit(cache=True)
def kept_in(starts, anchor, row_of, chosen, which):  # type: ignore[no-untyped-def]
    """Of the queries in `which`: how many each anchor has, and how many hold each of its candidates."""
    both, asked = np.zeros(chosen.shape, np.float32), np.zeros(len(chosen), np.float32)
    held = np.zeros(len(row_of), np.bool_)
    for order in range(len(starts) - 1):
        begin, end = starts[order], starts[order + 1]
        held[anchor[begin:end]] = True
        for query in range(begin, end):
            row = row_of[anchor[query]]
            if row < 0 or not which[query]:
                continue
            asked[row] += 1
            for place in range(chosen.shape[1]):
                if chosen[row, place] < 0:
                    break
                if held[chosen[row, place]]:
                    both[row, place] += 1
        held[anchor[begin:end]] = False
    return both, asked


def _fit(
    table: Singles, usable: Mask, learned: tuple[Singles, Singles], left_out: tuple[Singles, Singles]
) -> bytes | None:
    import xgboost

    def matrix(both: Singles, asked: Singles, reference: Any = None) -> Any:
        there = usable & (asked[:, None] > 0)
        weight = np.broadcast_to(asked[:, None], usable.shape)[there]
        figures = table[there]
        return xgboost.QuantileDMatrix(
            figures[:, USED],
            both[there] / weight,
            weight=weight,
            base_margin=_log_odds(figures[:, NAMES.index("smoothed")]),
            max_bin=PARAMETERS["max_bin"],
            ref=reference,
        )

    data = matrix(*learned)
    judge = matrix(*left_out, data)
    if not data.num_row() or not judge.num_row():
        return None
    model = xgboost.train(
        PARAMETERS,
        data,
        ROUNDS,
        evals=[(judge, "left_out")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    start = _loss(judge.get_base_margin(), judge.get_label(), judge.get_weight())
    if model.best_score >= start:
        return None
    return bytes(model[: model.best_iteration + 1].save_raw("ubj"))


def _loss(margin: Floats, label: Floats, weight: Floats) -> float:
    p = 1 / (1 + np.exp(-margin.astype(np.float64)))
    return float(-(weight * (label * np.log(p) + (1 - label) * np.log(1 - p))).sum() / weight.sum())


def _log_odds(probability: Singles) -> Floats:
    p = np.clip(probability.astype(np.float64), LEAST, MOST)
    return np.log(p / (1 - p))


def opened(model: bytes | None) -> Any:
    """The model ready to be asked; None stays None."""
    if model is None:
        return None
    import xgboost

    found = xgboost.Booster({"nthread": PARAMETERS["nthread"]})
    found.load_model(bytearray(model))
    return found


def probabilities(model: Any, table: Singles, chosen: Ints) -> Floats:
    """Estimated probability that an order with the anchor holds each candidate; -1 where there is none.

    `model` as `opened` gives it; None: smoothed confidence.
    """
    there = chosen >= 0
    found = np.full(chosen.shape, -1.0)
    figures = table[there]
    smoothed = figures[:, NAMES.index("smoothed")]
    if model is None or not len(figures):
        found[there] = np.clip(smoothed, LEAST, MOST)
    else:
        found[there] = model.inplace_predict(figures[:, USED], base_margin=_log_odds(smoothed))
    return found


def rank(
    known: Evidence,
    anchors: Ints,
    model: Any,
    *,
    tail_weight: float,
    kept: int,
    min_customers: int = 1,
    worth: Floats | None = None,
) -> Ranked:
    """The `kept` best companions of each anchor; see `choose.choose`. `worth`: shape (products), what a hit is worth.

    What fewer than `min_customers` customers of the anchor bought with it counts as not seen.
    """
    return ranked(known, anchors, model, (tail_weight,), kept=kept, min_customers=min_customers, worth=worth)[0]


def ranked(
    known: Evidence,
    anchors: Ints,
    model: Any,
    tail_weights: tuple[float, ...],
    *,
    kept: int,
    min_customers: int = 1,
    worth: Floats | None = None,
) -> list[Ranked]:
    """`rank` for several weights of the tail: points of the frontier at little more than the price of one."""
    tail = tail_of(known)
    firsts = range(0, max(len(anchors), 1), BLOCK)

    def block(first: int) -> list[Ranked]:
        own = anchors[first : first + BLOCK]
        return _block(known, own, model, tail_weights, tail, kept, min_customers, worth)

    with ThreadPoolExecutor(THREADS) as threads:
        blocks = list(threads.map(block, firsts))
    return [Ranked(*map(np.concatenate, zip(*each, strict=True))) for each in zip(*blocks, strict=True)]


def tail_of(known: Evidence) -> Mask:
    """Products that are not among the most popular."""
    counts = known.held.orders.item_counts
    tail = np.ones(len(counts), bool)
    tail[popular(counts, POPULAR_PRODUCTS)] = False
    return tail


def _block(
    known: Evidence,
    anchors: Ints,
    model: Any,
    tail_weights: tuple[float, ...],
    tail: Mask,
    kept: int,
    min_customers: int,
    worth: Floats | None,
) -> list[Ranked]:
    chosen, around = features.candidates(known, anchors)
    table = features.figures(known, anchors, chosen, around, min_customers=min_customers)
    probability = probabilities(model, table, chosen)
    value = None if worth is None else worth[np.maximum(chosen, 0)]
    found = []
    for best in choose.choose(
        known, anchors, chosen, probability, tail, tail_weights=tail_weights, kept=kept, value=value
    ):
        place, there = np.maximum(best, 0), best >= 0
        companions = np.where(there, np.take_along_axis(chosen, place, 1), -1).astype(np.int32)
        odds = np.where(there, np.take_along_axis(probability, place, 1), np.nan)
        figures = np.take_along_axis(table, place[:, :, None], 1)
        found.append(Ranked(anchors, companions, odds, figures))
    return found
