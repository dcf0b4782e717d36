"""The ranker and the textbook's rankings, asked the same questions about later orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from spark_jobs.kernels import baselines, features, protocol, ranker
from spark_jobs.kernels.baselines import Postings
from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.history import History
from spark_jobs.kernels.protocol import FIRST, NDCG_FIRST, Estimate, Measure, Trial

Lists = Callable[[Postings], Ints]
QUICK = ("popularity", "confidence")
BINS = 10


def textbook(trial: Trial, held: History, *, damping: float, more: Mapping[str, Lists]) -> Iterator[tuple[str, Ints]]:
    """Name and lists of each ranking to beat: the quick ones and `more`; `score` is the affinity table's."""
    postings = baselines.postings(trial.learned)
    for name, lists in ({quick: baselines.BASELINES[quick] for quick in QUICK} | dict(more)).items():
        yield name, lists(postings)
    yield "score", baselines.by_measure(postings, baselines.DAMPED, damping=damping)
    category = held.catalogue.of(trial.known).category[0]
    if (category >= 0).any():
        yield "smoothed", baselines.smoothed(postings, _alone(category))


def _alone(category: Ints) -> Ints:
    """Products without a category are each one of their own."""
    missing = category < 0
    return np.where(missing, category.max(initial=-1) + np.cumsum(missing), category).astype(np.int32)


def judged(
    region: str,
    held: History,
    cut: int,
    model: bytes | None,
    *,
    damping: float,
    tail_weight: float,
    frontier: tuple[float, ...],
    rank: bool,
    more: Mapping[str, Lists],
) -> Iterator[Measure]:
    """Rows of `evaluations` for a region: orders before day `cut` are learned from, the others asked.

    `more`: rankings to beat beside the quick ones. `rank`: the ranker too, at `tail_weight` and at the weights of
    `frontier`. Nothing where nothing can be asked.
    """
    orders = held.orders
    trial = protocol.trial_of(orders.where(orders.day < cut), orders.where(orders.day >= cut))
    if not len(trial.asked.anchor):
        return
    for name, lists in textbook(trial, held, damping=damping, more=more):
        yield from protocol.rows(protocol.measured(trial.asked, lists), name, region, "*")
    if not rank:
        return
    known = features.evidence(trial.learned, held.catalogue.of(trial.known))
    anchors = np.unique(trial.asked.anchor).astype(np.int32)
    weights = (tail_weight, *frontier)
    found = ranker.ranked(known, anchors, ranker.opened(model), weights, kept=NDCG_FIRST)
    for place, (weight, ranked) in enumerate(zip(weights, found, strict=True)):
        lists = np.full((len(trial.known), NDCG_FIRST), -1, np.int32)
        lists[anchors] = ranked.companions
        answers = protocol.measured(trial.asked, lists)
        if not place:
            yield from protocol.rows(answers, "ranker", region, "*")
            yield Measure(region, "*", "calibration_error/ranker", *calibration_error(trial, ranked))
        else:
            for name in ("hit@5", "tail@5", "ndcg@10", "coverage"):
                yield Measure(region, "*", f"frontier_{name}/ranker@tail={weight:g}", *answers[name])


def calibration_error(trial: Trial, ranked: ranker.Ranked) -> Estimate:
    """Mean of |estimated - seen| share of later orders that hold a companion, over ten groups by estimate.

    Of the first five of each anchor, weighted by how often it was asked (expected calibration error: Naeini, Cooper &
    Hauskrecht, AAAI 2015). Without an interval.
    """
    row = np.full(len(trial.known), -1, np.int64)
    row[ranked.anchors] = np.arange(len(ranked.anchors))
    companions = np.ascontiguousarray(ranked.companions[:, :FIRST])
    everyone = np.ones(len(trial.asked.anchor), np.bool_)
    both, asked = ranker.kept_in(trial.asked.starts, trial.asked.anchor, row, companions, everyone)
    there = companions >= 0
    weight = np.broadcast_to(asked[:, None], companions.shape)[there].astype(np.float64)
    estimated, seen = ranked.probability[:, :FIRST][there], both[there]
    by = np.argsort(estimated, kind="stable")
    group = np.minimum((np.cumsum(weight[by]) / max(weight.sum(), 1e-9) * BINS).astype(int), BINS - 1)
    apart = np.bincount(group, (estimated * weight - seen)[by], BINS)
    error = float(np.abs(apart).sum() / max(weight.sum(), 1e-9))
    return Estimate(error, error, error, len(trial.asked.anchor))
