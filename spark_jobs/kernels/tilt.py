"""A region's ranking as a segment would have it: companions that the segment buys more than its region does rise.

P_s(j|i) ∝ P(j|i) · r_j^g, r_j = ((c_sj + b p_j) / (n_s + b)) / p_j: see `kernels/placebo`, which learns g. (The
segment's own pair counts, the other part of its ranking there, are in the segment's sets.)
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.kernels.cells import Cell
from spark_jobs.kernels.placebo import TILT_PRIOR, Floats


def bought(cell: Cell) -> pa.Table:
    """What a cell's orders hold: sku, orders that hold it, and (the same in every row) orders of the cell."""
    held = cell.item_counts.astype(np.int64)
    return pa.table({"sku": cell.skus, "orders": held, "of": np.full(len(held), cell.orders, np.int64)})


def tilted(ranked: pa.Table, mine: pa.Table, whole: pa.Table, tilt: float) -> pa.Table:
    """`ranked` (anchor, companion, place from 1, score) with the places that a segment gives.

    `mine` and `whole` as `bought` gives them, of the segment and of its region; `tilt`: g, 0 leaves all as it is.
    What the region did not buy keeps its score.
    """
    share, _ = _shares(ranked["companion"], whole)
    own, orders = _shares(ranked["companion"], mine)
    known = share > 0
    popular = np.where(known, share, 1.0)
    more = np.where(known, (own * orders + TILT_PRIOR * popular) / (orders + TILT_PRIOR) / popular, 1.0)
    score = ranked["score"].to_numpy() * more**tilt
    anchor = ranked["anchor"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((ranked["place"].to_numpy(), -score, anchor))
    first = np.flatnonzero(np.diff(anchor[order], prepend=-1))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order)))) + 1
    return ranked.set_column(ranked.column_names.index("place"), "place", pa.array(place))


def _shares(skus: pa.ChunkedArray, held: pa.Table) -> tuple[Floats, int]:
    """Share of the orders that hold each of `skus`, and how many orders there are."""
    size = int(held["of"][0].as_py()) if len(held) else 0
    orders = held["orders"].combine_chunks().take(pc.index_in(skus.combine_chunks(), held["sku"].combine_chunks()))
    return orders.fill_null(0).to_numpy(zero_copy_only=False) / max(size, 1), size
