"""Rows that say nothing of each other, by two threads: a level's task is often the last that a stage waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

THREADS = 2


def in_parts(
    rows: Sequence[object] | np.ndarray, work: Callable[[slice], tuple[np.ndarray, ...]]
) -> tuple[np.ndarray, ...]:
    """What `work` gives for all `rows`: arrays whose first axis is the rows, each part of which a thread has made.

    Compiled functions run beside each other only where they let go of the interpreter's lock (`nogil`).
    """
    ends = np.linspace(0, len(rows), THREADS + 1).astype(int).tolist()
    with ThreadPoolExecutor(THREADS) as threads:
        parts = list(threads.map(lambda part: work(slice(ends[part], ends[part + 1])), range(THREADS)))
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))
