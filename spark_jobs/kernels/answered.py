"""Answers for products without counted sets, as the lists and the bundles of a region's own window."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.kernels import bundle_rows, lawful, offering
from spark_jobs.kernels.cells import Ints
from spark_jobs.kernels.shop import Shop
from tandem.bundle import LEVELS, bundle_id
from tandem.rules import Rules
from tandem.segments import ALL


def rows(answers: pa.Table, own: pa.Table, shop: Shop, rules: Rules, region: str) -> pa.Table:
    """Rows of `bundle_rows.ROWS`: a list for each anchor of `answers` (`cold.ANSWERS`), then bundles that `own` lacks.

    A bundle has one story in a region, whoever lists it: what `own` (bundle_id, evidence) counted of it, else that of
    its most telling level, of two anchors the first by SKU. What rules forbid is in no list.
    """
    answers, anchor, items = _lawful(answers, shop, region)
    pair, firsts = _pairs(items, anchor, answers["level"].to_numpy())
    told = answers.take(pa.array(firsts))
    skus = [shop.skus.take(pa.array(side)).to_pylist() for side in items[firsts].T]
    ids = pa.array([bundle_id(((left, 1), (right, 1))) for left, right in zip(*skus, strict=True)], pa.string())
    place = pc.index_in(ids, own["bundle_id"].combine_chunks())
    level = pa.array(LEVELS, pa.string()).take(told["level"].combine_chunks())
    counted = pc.struct_field(own["evidence"].combine_chunks(), "matched").take(place)
    score = np.zeros(len(firsts))
    np.maximum.at(score, pair, answers["confidence"].to_numpy())
    nothing = pa.array(np.zeros(len(firsts), np.int64))
    story = [level, level, nothing, *(told[name].combine_chunks() for name in ("customers", "lift"))]
    window = offering.Window(region, ALL, 0)
    bundles = pa.table(
        {
            "bundle_id": ids,
            "components": bundle_rows.components(items[firsts], shop, rules, window),
            "score": score,
            "evidence": pa.StructArray.from_arrays(story, fields=list(bundle_rows.EVIDENCE)),
            "rules": bundle_rows.shaped(items[firsts], shop, window),
        }
    )
    lists = _lists(answers, ids.take(pa.array(pair)), pc.coalesce(counted, level).take(pa.array(pair)))
    return pa.concat_tables([bundle_rows.as_rows(part, window) for part in (lists, bundles.filter(pc.is_null(place)))])


def _lawful(answers: pa.Table, shop: Shop, region: str) -> tuple[pa.Table, Ints, Ints]:
    """What rules let stand in the region's own lists: with the anchors, and both products in order, by number."""
    anchor, companion = shop.numbers(answers["anchor"]), shop.numbers(answers["companion"])
    items = np.sort(np.stack((anchor, companion), axis=1), axis=1)
    held = [rule for rule in shop.held if rule.covers(region, ALL)]
    fine = (items >= 0).all(1) & lawful.lawful(items, held)
    return answers.filter(pa.array(fine)).combine_chunks(), anchor[fine], items[fine]


def _pairs(items: Ints, anchor: Ints, level: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The bundle of each answer, and of each bundle the answer that tells of it."""
    order = np.lexsort((anchor, level, items[:, 1], items[:, 0]))
    new = (np.diff(items[order], axis=0, prepend=-1) != 0).any(1)
    pair = np.empty(len(order), np.int64)
    pair[order] = np.cumsum(new) - 1
    return pair, order[new]


def _lists(answers: pa.Table, ids: pa.Array, matched: pa.Array) -> pa.Table:
    """A list for each anchor by SKU; `ids` and `matched`: of each answer."""
    entries = pa.StructArray.from_arrays(
        [ids, answers["confidence"].combine_chunks(), matched], fields=list(bundle_rows.LISTED)
    )
    order = pc.sort_indices(answers, [("anchor", "ascending"), ("place", "ascending")])
    anchors = pc.run_end_encode(answers["anchor"].combine_chunks().take(order))
    ends = pa.concat_arrays([pa.array([0], pa.int32()), anchors.run_ends])
    return pa.table({"anchor": anchors.values, "bundles": pa.ListArray.from_arrays(ends, entries.take(order))})
