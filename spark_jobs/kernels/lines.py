"""From lines, as a file holds them, to orders: packed by those who read, joined by those who count.

Orders are told apart by 128 bits of a hash over region and order id, so that whoever joins parts compares numbers: of
10^12 orders two share them with probability 10^-15.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from spark_jobs.kernels import days
from spark_jobs.kernels.baskets import Baskets, Longs, Orders, Shorts, arrange, counted
from spark_jobs.kernels.cells import Ints, Offsets, codes, offsets, united
from spark_jobs.kernels.prefetch import prefetch

Cells = list[tuple[str, str]]
"""Region and segment of each cell."""
DAY = 86_400_000_000
"""Microseconds."""
MANTISSA_BITS = 16
"""A weight is exact to 2^-16 of itself."""
INSERTED = 256
"""Lines up to which an order's items are put in place one by one; more are sorted."""
AHEAD = 16
"""Keys that are fetched before they are looked up."""
NO_ORDER = np.empty(0, np.int64)
ORDERS = pa.schema(
    [
        ("region", pa.string()),
        ("segment", pa.string()),
        ("customer", pa.string()),
        ("day", pa.int32()),
        ("skus", pa.list_(pa.field("item", pa.string()))),
    ]
)
"""An order as a row; customer null where nobody is known; day from 1970-01-01; skus distinct."""


@dataclass(frozen=True)
class Part:
    """Orders of one file, or as much of them as it holds."""

    skus: pa.Array
    customers: pa.Array
    cells: Cells
    key: np.ndarray
    """Shape (orders, 2), unsigned 64 bits each."""
    customer: Ints
    """Number in `customers`, -1 where there is none."""
    cell: Shorts
    at: Longs
    """Shape (orders): time of the first line, microseconds."""
    starts: Offsets
    items: Ints
    """Numbers in `skus`, distinct within an order."""
    later: Longs
    """Shape (lines): microseconds from the order's first line to the item's; empty where all are 0."""


@dataclass(frozen=True)
class LeftOut:
    """What caps have kept out of the counts."""

    orders: int
    """Orders joined, before any cap."""
    lines: int
    large_orders: int
    """Orders of more than `max_basket` different products, not counted at all."""
    large_order_lines: int
    popular_items: int
    """Products in more than `max_item_orders` orders, not counted as anchor or companion."""
    popular_item_lines: int


@dataclass(frozen=True)
class Decay:
    """An order's weight halves every `half_life_days`: a whole number per day, the same for every as_of.

    weight(day) = round(2^(MANTISSA_BITS + (day mod half_life) / half_life)) · 2^(day div half_life - base), where base
    is the day div half_life of the window's first day. When the base rises by one, all weights halve without a rest.
    """

    half_life_days: int
    first_day: int
    """Of the window, in days since 1970-01-01."""
    as_of_day: int

    def weights(self, at: Longs) -> Longs:
        """The weight of orders at these times (microseconds since 1970)."""
        half = self.half_life_days
        day = at // DAY
        mantissa = np.round(2.0 ** (MANTISSA_BITS + np.arange(half) / half)).astype(np.int64)
        return mantissa[day % half] << (day // half - self.first_day // half)

    @property
    def unit(self) -> float:
        """The weight of an order at as_of: what a decayed count is divided by, so that it is in orders of today."""
        half = self.half_life_days
        return float(2.0 ** (MANTISSA_BITS + self.as_of_day / half - self.first_day // half))


def decay(as_of: date, window_days: int, half_life_days: int) -> Decay:
    """The decay of a window of `window_days` before `as_of`."""
    today = days.number(as_of)
    return Decay(half_life_days, today - window_days, today)


def packed(lines: pa.Table, region: str, segments: Mapping[str, pa.Array], everyone: str) -> Part:
    """Orders from lines of one region that count: order_id, ordered_at, sku, customer_id (text, or text by dictionary).

    Without customer_id they are nobody's. `segments` gives each segment's customers; who is in none is in `everyone`. A
    customer is the least that an order's lines name. Lines of an order that stand together are joined; the rest is left
    to `joined`.
    """
    ids, at = _one(lines["order_id"]), _one(lines["ordered_at"]).cast(pa.int64()).to_numpy(zero_copy_only=False)
    sku, skus = codes(_one(lines["sku"]))
    known = _one(lines["customer_id"]) if "customer_id" in lines.column_names else pa.nulls(len(sku), pa.string())
    customer, customers = _numbers(known)
    runs, key = keyed(ids, region)
    names = [name for name in segments if name != everyone]
    placed = _segments(customers, [segments[name] for name in names])
    first, starts, items, later, who = _runs(runs, sku, at, customer)
    cell = np.where(who >= 0, placed[who], len(names)) if len(customers) else np.full(len(who), len(names))
    return Part(
        skus=skus,
        customers=customers,
        cells=[(region, name) for name in (*names, everyone)],
        key=key,
        customer=who,
        cell=cell.astype(np.int16),
        at=first,
        starts=starts,
        items=items,
        later=later if later.any() else later[:0],
    )


def of_orders(part: Part, keep: NDArray[np.bool_]) -> Part:
    """The orders of `part` that `keep` flags."""
    sizes = np.diff(part.starts)
    held = np.repeat(keep, sizes)
    return replace(
        part,
        key=part.key[keep],
        customer=part.customer[keep],
        cell=part.cell[keep],
        at=part.at[keep],
        starts=offsets(sizes[keep]),
        items=part.items[held],
        later=part.later[held] if len(part.later) else part.later,
    )


def drawn(part: Part, share: float) -> Part:
    """The orders of about `share` of all customers, drawn by a hash; an order of nobody is drawn by its own."""
    people = keyed(part.customers, "")[1][:, 0]
    owner = np.where(part.customer >= 0, people[part.customer], part.key[:, 0]) if len(people) else part.key[:, 0]
    return of_orders(part, owner < np.uint64(min(share, 1.0) * (2**64 - 1)))


def joined(
    parts: Sequence[Part], *, decay: Decay, max_basket: int, max_item_orders: int
) -> tuple[Baskets, Cells, LeftOut]:
    """The baskets of all parts and the cells they are numbered by, sorted; and what the caps left out."""
    orders, _, cells, left_out = merged(parts, decay=decay, max_basket=max_basket, max_item_orders=max_item_orders)
    regions = sorted({region for region, _ in cells})
    return arrange(orders, regions_of(cells), len(regions)), cells, left_out


def regions_of(cells: Cells) -> Shorts:
    """The number of each cell's region, regions sorted."""
    regions = sorted({region for region, _ in cells})
    return np.array([regions.index(region) for region, _ in cells], np.int16)


def merged(
    parts: Sequence[Part], *, decay: Decay, max_basket: int, max_item_orders: int
) -> tuple[Orders, pa.Array, Cells, LeftOut]:
    """The orders of all parts, each once; their customers by number; their cells, sorted; what the caps left out."""
    skus, people, cells, _, at, starts, items, later, customer, cell = _whole(parts)
    sizes = np.diff(starts)
    large = sizes > max_basket
    in_large = np.repeat(large, sizes)
    held = counted(items, len(skus)) - counted(items[in_large], len(skus))
    popular = held > max_item_orders
    left_out = LeftOut(
        orders=len(sizes),
        lines=len(items),
        large_orders=int(large.sum()),
        large_order_lines=int(sizes[large].sum()),
        popular_items=int(popular.sum()),
        popular_item_lines=int(held[popular].sum()),
    )
    if large.any() or popular.any():
        kept_lines = ~(in_large | popular[items])
        sizes = np.add.reduceat(np.append(kept_lines, False).astype(np.int64), starts[:-1])[~large]
        items = items[kept_lines]
        later = later[kept_lines] if len(later) else later
        starts, at, customer, cell = offsets(sizes), at[~large], customer[~large], cell[~large]
    orders = Orders(
        skus=skus,
        starts=starts,
        items=items,
        moments=_moments(starts, later) if later.any() else np.empty(0, np.int16),
        customer=customer,
        cell=cell,
        at=at,
        weight=decay.weights(at),
    )
    return orders, people, cells, left_out


def orders(parts: Sequence[Part], max_basket: int) -> pa.Table:
    """The orders of all parts, each once, as rows of ORDERS in the order of time.

    Orders of one moment stand by region and the hash of their id. Those of more than `max_basket` different products
    (canteens, resellers) are left out: they would dominate what is counted of pairs.
    """
    if not parts:
        return ORDERS.empty_table()
    skus, people, cells, key, at, starts, items, _, customer, cell = _whole(parts)
    region = regions_of(cells)[cell]
    by = np.lexsort((key[:, 1], key[:, 0], region, at))
    by = by[np.diff(starts)[by] <= max_basket]
    sizes = np.diff(starts)[by]
    begins = offsets(sizes)
    lines = np.repeat(starts[:-1][by] - begins[:-1], sizes) + np.arange(begins[-1])
    held = pa.ListArray.from_arrays(pa.array(begins.astype(np.int32)), skus.take(pa.array(items[lines])))
    who = pa.array(np.maximum(customer[by], 0), mask=customer[by] < 0)
    place = pa.array(cell[by])
    columns = [
        *(pa.array(names, pa.string()).take(place) for names in zip(*cells, strict=True)),
        people.take(who),
        pa.array((at[by] // DAY).astype(np.int32)),
        held,
    ]
    return pa.table(columns, schema=ORDERS)


def _whole(  # type: ignore[no-untyped-def]
    parts: Sequence[Part],
):
    """Products, customers, cells (sorted), and of each order its key, time, start, items, times of items, customer and
    cell: all parts as one, each order once."""
    skus, sku = united([part.skus for part in parts])
    people, person = united([part.customers for part in parts])
    cells = sorted({cell for part in parts for cell in part.cells})
    cell = _joined(np.array([cells.index(own) for own in part.cells], np.int16)[part.cell] for part in parts)
    items = _renumbered([part.items for part in parts], sku)
    customer = _joined(_known(number, part.customer) for number, part in zip(person, parts, strict=True))
    at = _joined(part.at for part in parts)
    starts = offsets(np.concatenate([np.diff(part.starts) for part in parts]))
    later = _laters(parts)
    key = np.concatenate([part.key for part in parts])
    split = _split(key)
    if split.any():
        whole = ~split
        new, first, sizes, held, times, who, where = _reunited(
            *_orders_at(split, key, at, starts, items, later, customer, cell)
        )
        if len(later) or times.any():  # no order of one file has two times; one whose lines came in two may
            later = _put_behind(later if len(later) else np.zeros(len(items), np.int64), starts, whole, times)
        items = _put_behind(items, starts, whole, held)
        starts = offsets(np.append(np.diff(starts)[whole], sizes))
        key, at = np.concatenate((key[whole], new)), np.append(at[whole], first)
        customer, cell = np.append(customer[whole], who), np.append(cell[whole], where)
    return skus, people, cells, key, at, starts, items, later, customer, cell


def _renumbered(items: Sequence[Ints], numbers: Sequence[Ints]) -> Ints:
    """`numbers[items]` of each part, one after the other."""
    ends = np.cumsum([0, *map(len, items)])
    whole = np.empty(ends[-1], np.int32)
    for part, (own, number) in enumerate(zip(items, numbers, strict=True)):
        np.take(number, own, out=whole[ends[part] : ends[part + 1]], mode="clip")
    return whole


def _put_behind(values: np.ndarray, starts: Offsets, whole: NDArray[np.bool_], more: np.ndarray) -> np.ndarray:
    """The lines of the `whole` orders moved together in `values` itself, and `more` behind them: never more lines."""
    end = _moved_together(values, starts, whole)
    values[end : end + len(more)] = more
    return values[: end + len(more)]


@njit(cache=True)
def _moved_together(values, starts, whole):  # type: ignore[no-untyped-def]
    end = 0
    for order in range(len(whole)):
        if whole[order]:
            for line in range(starts[order], starts[order + 1]):
                values[end] = values[line]
                end += 1
    return end


def _split(key: np.ndarray) -> NDArray[np.bool_]:
    """Which orders have a key that others have too: their lines came in several runs."""
    room = 1 << (2 * len(key)).bit_length()
    return _again(key, np.full(room, -1, np.int32))


@njit(cache=True)
def _again(key, table):  # type: ignore[no-untyped-def]
    """Flags the keys that are not alone, by a table of places with linear probing (Knuth, TAOCP 3, 6.4)."""
    again = np.zeros(len(key), np.bool_)
    mask = np.uint64(len(table) - 1)
    for order in range(len(key)):
        if order + AHEAD < len(key):
            prefetch(table, key[order + AHEAD, 0] & mask)
        place = key[order, 0] & mask
        while table[place] >= 0:
            other = table[place]
            if key[other, 0] == key[order, 0] and key[other, 1] == key[order, 1]:
                again[order] = again[other] = True
                break
            place = (place + np.uint64(1)) & mask
        else:
            table[place] = order
    return again


def _orders_at(which, key, at, starts, items, later, customer, cell):  # type: ignore[no-untyped-def]
    """The orders that `which` flags: key, time, size, items, times of items, customer and cell."""
    sizes = np.diff(starts)
    held = np.repeat(which, sizes)
    times = later[held] if len(later) else later
    return key[which], at[which], sizes[which], items[held], times, customer[which], cell[which]


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numbers(values: pa.Array) -> tuple[Ints, pa.Array]:
    """Each value's number in sorted order, -1 for none, and the sorted distinct values."""
    if not isinstance(values, pa.DictionaryArray):
        values = values.dictionary_encode()
    known = values.dictionary
    number = values.indices.fill_null(-1).to_numpy()
    return _known(_ranks(known), number), known.take(pc.array_sort_indices(known))


def _ranks(values: pa.Array) -> Ints:
    """Each distinct value's place in sorted order."""
    ranks = np.empty(len(values), np.int32)
    ranks[pc.array_sort_indices(values).to_numpy()] = np.arange(len(values), dtype=np.int32)
    return ranks


def _segments(customers: pa.Array, of_segment: Sequence[pa.Array]) -> Ints:
    """Each customer's segment, by number; len(of_segment): none."""
    found = np.full(len(customers), len(of_segment), np.int32)
    for number, members in enumerate(of_segment):
        found[pc.is_in(customers, members).to_numpy(zero_copy_only=False)] = number
    return found


def _known(number: Ints, place: Ints) -> Ints:
    """`number[place]`, and -1 where `place` is -1."""
    return np.append(number, np.int32(-1))[place]


def _joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(arrays))


def _laters(parts: Sequence[Part]) -> Longs:
    if not any(len(part.later) for part in parts):
        return np.empty(0, np.int64)
    return _joined(part.later if len(part.later) else np.zeros(len(part.items), np.int64) for part in parts)


def _reunited(key, at, sizes, items, later, customer, cell):  # type: ignore[no-untyped-def]
    """Orders whose lines came in several runs, put together; as `_orders_at` gives them."""
    by_key = np.lexsort((key[:, 1], key[:, 0]))
    again = (key[by_key[1:]] == key[by_key[:-1]]).all(1)
    run = np.concatenate(([0], np.cumsum(~again)))
    begins = offsets(sizes)[:-1][by_key]
    sizes = sizes[by_key]
    lines = np.repeat(begins - offsets(sizes)[:-1], sizes) + np.arange(sizes.sum())
    owner = np.repeat(run, sizes).astype(np.int32)
    when = np.repeat(at[by_key], sizes) + (later[lines] if len(later) else 0)
    who = np.repeat(customer[by_key], sizes).astype(np.int32)
    first, starts, items, times, _ = _runs(offsets(np.bincount(owner)), items[lines], when, who)
    nobody = np.iinfo(np.int32).max
    named = np.full(len(first), nobody, np.int32)
    np.minimum.at(named, run, np.where(customer < 0, nobody, customer)[by_key])
    theirs = np.empty(len(first), cell.dtype)
    theirs[run] = cell[by_key]
    of_named = customer[by_key] == named[run]
    theirs[run[of_named]] = cell[by_key][of_named]
    customer = np.where(named == nobody, -1, named).astype(np.int32)
    times = times if len(times) else np.zeros(len(items), np.int64)
    return key[by_key[np.concatenate(([True], ~again))]], first, np.diff(starts), items, times, customer, theirs


def keyed(ids: pa.Array, region: str) -> tuple[Offsets, np.ndarray]:
    """Where runs of one order id begin (one more at the end), and the key of each run's order."""
    ids = ids.cast(pa.string())
    _, offsets, data = ids.buffers()
    ends = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    text = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    seed = np.frombuffer(region.encode(), np.uint8)
    return _key_runs(ends, text, seed)


@njit(cache=True, nogil=True)
def _key_runs(ends, text, seed):  # type: ignore[no-untyped-def]
    lines = len(ends) - 1
    starts = np.empty(lines + 1, np.int64)
    runs = 0
    for line in range(lines):
        same = line > 0 and ends[line + 1] - ends[line] == ends[line] - ends[line - 1]
        if same:
            length = ends[line + 1] - ends[line]
            for letter in range(length):
                if text[ends[line] + letter] != text[ends[line - 1] + letter]:
                    same = False
                    break
        if not same:
            starts[runs] = line
            runs += 1
    starts[runs] = lines
    keys = np.empty((runs, 2), np.uint64)
    for run in range(runs):
        for half in range(2):
            value = np.uint64(0x9E3779B97F4A7C15) if half else np.uint64(0xC2B2AE3D27D4EB4F)
            for letter in range(len(seed)):
                value = _mixed(value, seed[letter])
            value = _mixed(value, np.uint64(256))
            for letter in range(ends[starts[run]], ends[starts[run] + 1]):
                value = _mixed(value, text[letter])
            keys[run, half] = value
    return starts[: runs + 1], keys


@njit(cache=True)
def _mixed(value, letter):  # type: ignore[no-untyped-def]
    """One step of a hash: Stafford's variant 13 of MurmurHash3's finalizer, 2011."""
    value = (value ^ np.uint64(letter)) + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _runs(runs, sku, at, customer):  # type: ignore[no-untyped-def]
    """Orders from runs of lines: first time, starts, distinct items (rising), times after the first, least customer.

    No times after the first where each run has one time.
    """
    orders = len(runs) - 1
    first, who = np.empty(orders, np.int64), np.empty(orders, np.int32)
    starts = np.empty(orders + 1, np.int64)
    timed = _timed(runs, at)
    items, later = np.empty(len(sku), np.int32), np.empty(len(sku) if timed else 0, np.int64)
    starts[0], filled = 0, 0
    for order in range(orders):
        begin = filled
        first[order], who[order] = at[runs[order]], -1
        sorts = runs[order + 1] - runs[order] > INSERTED
        by_sku = np.argsort(sku[runs[order] : runs[order + 1]], kind="mergesort") if sorts else NO_ORDER
        for number in range(runs[order], runs[order + 1]):
            line = runs[order] + by_sku[number - runs[order]] if sorts else number
            first[order] = min(first[order], at[line])
            if customer[line] >= 0 and (who[order] < 0 or customer[line] < who[order]):
                who[order] = customer[line]
            place = filled
            while place > begin and items[place - 1] > sku[line]:
                place -= 1
            if place > begin and items[place - 1] == sku[line]:
                if timed:
                    later[place - 1] = min(later[place - 1], at[line])
                continue
            for move in range(filled, place, -1):
                items[move] = items[move - 1]
            items[place] = sku[line]
            if timed:
                for move in range(filled, place, -1):
                    later[move] = later[move - 1]
                later[place] = at[line]
            filled += 1
        if timed:
            for place in range(begin, filled):
                later[place] -= first[order]
        starts[order + 1] = filled
    return first, starts, items[:filled].copy(), later[:filled].copy(), who


@njit(cache=True)
def _timed(runs, at):  # type: ignore[no-untyped-def]
    """Whether lines of a run have different times."""
    for order in range(len(runs) - 1):
        for line in range(runs[order], runs[order + 1]):
            if at[line] != at[runs[order]]:
                return True
    return False


@njit(cache=True)
def _moments(starts, later):  # type: ignore[no-untyped-def]
    """Place of each line's time among the different times of its order, from 0."""
    moments = np.zeros(len(later), np.int16)
    for order in range(len(starts) - 1):
        own = later[starts[order] : starts[order + 1]]
        if own.any():
            moments[starts[order] : starts[order + 1]] = np.searchsorted(np.unique(own), own)
    return moments
