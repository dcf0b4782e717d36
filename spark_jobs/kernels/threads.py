"""Work that is done beside other work, by threads that share what they read. Compiled functions run beside each other
only where they let go of the interpreter's lock (`nogil`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Made = TypeVar("Made")
THREADS = 2
"""For rows that say nothing of each other: a level's task is often the last that a stage waits for."""


def each(items: Collection[Item], work: Callable[[Item], Made]) -> list[Made]:
    """What `work` makes of each item, a thread for each."""
    with ThreadPoolExecutor(max(len(items), 1)) as threads:
        return list(threads.map(work, items))


def in_parts(
    rows: Sequence[object] | np.ndarray, work: Callable[[slice], tuple[np.ndarray, ...]]
) -> tuple[np.ndarray, ...]:
    """What `work` gives for all `rows`: arrays whose first axis is the rows, each part of which a thread has made."""
    ends = np.linspace(0, len(rows), THREADS + 1).astype(int).tolist()
    parts = each(range(THREADS), lambda part: work(slice(ends[part], ends[part + 1])))
    return tuple(np.concatenate(made) for made in zip(*parts, strict=True))
