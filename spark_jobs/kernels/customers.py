"""What customers did: their orders, returns too, as readers pack them and as one task for each region joins them.

Orders are told apart as in `lines`: by 128 bits of a hash over region and order id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.kernels import lines, protocol
from spark_jobs.kernels.baskets import Longs
from spark_jobs.kernels.cells import Ints, Offsets, codes, offsets, united

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Orders:
    """Orders of one region. As `packed` gives them, an order may come in several pieces; `merged` has each once."""

    skus: pa.Array
    """Sorted, as are `customers`; some may be in no order."""
    customers: pa.Array
    key: np.ndarray
    """Shape (orders, 2), unsigned 64 bits each."""
    customer: Ints
    """Number in `customers`, -1 where there is none."""
    day: Ints
    """Of the first line, from 1970-01-01."""
    net_cents: Longs
    bought: Mask
    """Has a line of a positive quantity."""
    starts: Offsets
    items: Ints
    """Numbers in `skus` of what counts as bought together."""

    def baskets(self, max_basket: int) -> Mask:
        """Which orders hold something that counts, and at most so many different products."""
        sizes = np.diff(self.starts)
        return (sizes > 0) & (sizes <= max_basket)

    def between(self, begin: int, end: int) -> Orders:
        """The orders numbered `begin` to `end` - 1, with their products and customers alone."""
        own = slice(begin, end)
        items, item = np.unique(self.items[self.starts[begin] : self.starts[end]], return_inverse=True)
        known, who = np.unique(self.customer[own], return_inverse=True)
        named = known[known >= 0]
        return Orders(
            self.skus.take(pa.array(items)),
            self.customers.take(pa.array(named)),
            self.key[own],
            (who - (len(known) - len(named))).astype(np.int32),
            self.day[own],
            self.net_cents[own],
            self.bought[own],
            self.starts[begin : end + 1] - self.starts[begin],
            item.astype(np.int32),
        )


def packed(rows: pa.Table, region: str) -> Orders:
    """Orders from lines of one region: order_id, ordered_at, sku, quantity, net_cents, customer_id, in any order.

    Each run of lines of one order is a piece. A line counts as bought with a quantity and a price above zero.
    """
    rows = rows.combine_chunks()
    runs, key = lines.keyed(rows["order_id"].combine_chunks(), region)
    first = runs[:-1]
    day = rows["ordered_at"].cast(pa.int64()).to_numpy() // lines.DAY
    net = rows["net_cents"].to_numpy()
    positive = pc.greater(rows["quantity"], 0).to_numpy()
    counts = positive & (net > 0)
    sku, skus = codes(rows["sku"].combine_chunks().filter(pa.array(counts)))
    nobody = rows["customer_id"].is_null().to_numpy()
    customer, customers = codes(rows["customer_id"].drop_null())
    who = np.full(len(rows), len(customers), np.int32)
    who[~nobody] = customer
    return Orders(
        skus,
        customers,
        key,
        _least(who, first, len(customers)),
        np.minimum.reduceat(day, first).astype(np.int32),
        np.add.reduceat(net, first),
        np.logical_or.reduceat(positive, first),
        offsets(np.add.reduceat(counts.astype(np.int64), first)),
        sku,
    )


def merged(parts: Sequence[Orders]) -> Orders:
    """The orders of all parts of one region, each once: nobody's, then each customer's, day by day."""
    skus, sku = united([part.skus for part in parts])
    people, person = united([part.customers for part in parts])
    key = np.concatenate([part.key for part in parts])
    by_key = np.lexsort((key[:, 1], key[:, 0]))
    new = np.concatenate(([True], (key[by_key[1:]] != key[by_key[:-1]]).any(1)))
    first = np.flatnonzero(new)

    def by(values: Iterator[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(values))[by_key]

    customer = by(np.append(number, len(people))[part.customer] for number, part in zip(person, parts, strict=True))
    customer = _least(customer, first, len(people))
    day = np.minimum.reduceat(by(part.day for part in parts), first)
    turn = np.lexsort((day, customer))
    place = np.empty(len(turn), np.int64)
    place[turn] = np.arange(len(turn))
    order = np.empty(len(key), np.int64)
    order[by_key] = place[np.cumsum(new) - 1]
    sizes = np.concatenate([np.diff(part.starts) for part in parts])
    item = np.concatenate([number[part.items] for number, part in zip(sku, parts, strict=True)])
    each = np.sort(np.repeat(order, sizes) * max(len(skus), 1) + item)
    each = each[np.diff(each, prepend=-1) != 0]
    return Orders(
        skus,
        people,
        key[by_key[first]][turn],
        customer[turn],
        day[turn],
        np.add.reduceat(by(part.net_cents for part in parts), first)[turn],
        np.logical_or.reduceat(by(part.bought for part in parts), first)[turn],
        offsets(np.bincount(each // max(len(skus), 1), minlength=len(turn))),
        (each % max(len(skus), 1)).astype(np.int32),
    )


def blocks(held: Orders, size: int) -> Iterator[Orders]:
    """`held` (see `merged`) in blocks of about `size` lines; orders of one customer are in one block."""
    begins = np.flatnonzero((np.diff(held.customer, prepend=-2) != 0) | (held.customer < 0))
    begins = begins[np.unique(held.starts[begins] // size, return_index=True)[1]]
    for begin, end in pairwise([*begins.tolist(), len(held.customer)]):
        yield held.between(begin, end)


class Behaviour(NamedTuple):
    """Of each customer with an order before a day; equal lengths."""

    customer: Ints
    recency_days: Ints
    frequency: Longs
    """Orders in which something was bought."""
    spend_cents: Longs


def behaviour(held: Orders, before: int) -> Behaviour:
    """What customers did before the day `before`; `held` has all orders of each customer, together."""
    own = (held.customer >= 0) & (held.day < before)
    customer = held.customer[own]
    first = np.flatnonzero(np.diff(customer, prepend=-1))
    if not len(first):
        return Behaviour(customer, customer, customer.astype(np.int64), customer.astype(np.int64))
    return Behaviour(
        customer[first],
        (before - np.maximum.reduceat(held.day[own], first)).astype(np.int32),
        np.add.reduceat(held.bought[own].astype(np.int64), first),
        np.add.reduceat(held.net_cents[own], first),
    )


class Counted(NamedTuple):
    """How often each customer bought each feature, sorted by both; equal lengths."""

    customer: Ints
    feature: Ints
    counts: Longs
    """Shape (pairs, slices): before each of the days asked for."""


def counted(held: Orders, feature: Ints, before: Sequence[int], max_basket: int) -> Counted:
    """How often customers bought features: `feature` (shape (skus)) is each product's, -1 for none."""
    sizes = np.diff(held.starts)
    of_line = np.repeat((held.customer >= 0) & held.baskets(max_basket), sizes)
    found = feature[held.items]
    of_line &= found >= 0
    width = int(feature.max(initial=0)) + 1
    day = np.repeat(held.day, sizes)[of_line]
    keys, pair = np.unique(
        np.repeat(held.customer, sizes)[of_line] * np.int64(width) + found[of_line], return_inverse=True
    )
    counts = [np.bincount(pair[day < end], minlength=len(keys)) for end in before]
    return Counted((keys // width).astype(np.int32), (keys % width).astype(np.int32), np.stack(counts, 1))


def asked(held: Orders, max_basket: int) -> tuple[protocol.Orders, pa.Array]:
    """The orders that are baskets, as trials take them, and their customers; orders of nobody have numbers after."""
    kept = held.baskets(max_basket)
    known, who = np.unique(held.customer[kept], return_inverse=True)
    named = known[known >= 0]
    who = (who - (len(known) - len(named))).astype(np.int32)
    who[who < 0] = len(named) + np.arange(int((who < 0).sum()))
    sizes = np.diff(held.starts)
    items = held.items[np.repeat(kept, sizes)]
    orders = protocol.Orders(offsets(sizes[kept]), items, who, held.day[kept], len(held.skus))
    return orders, held.customers.take(pa.array(named))


def _least(customer: Ints, first: Offsets, nobody: int) -> Ints:
    """The least customer of each group, -1 where there is none (all `nobody`); groups begin at `first`."""
    least = np.minimum.reduceat(customer, first)
    return np.where(least == nobody, -1, least).astype(np.int32)
