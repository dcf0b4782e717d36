"""What is known of a catalogue where bundles are made: categories, prices, neighbours and rules, as one Arrow table.

The table travels as one value (Arrow's stream format, compressed) to every task that makes or lists bundles, where it
takes about 60 bytes a product, 40 a price and 40 a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spark_jobs.kernels import cells
from spark_jobs.kernels.cells import Ints
from tandem.merchandising import Pin, Product, Resolved, pinned
from tandem.rules import Rule

SCHEMA = pa.schema(
    [("kind", pa.string()), ("sku", pa.string()), ("other", pa.string()), ("more", pa.string()), ("number", pa.int64())]
)
"""Rows by kind. product: sku, category, brand. price: sku, region, -, minor units. agreed: sku, neighbour of another
need. alike: sku, what may stand in for it, -, rank from 1. apart: sku, a substitute that is rarely in one order with
it. rule: sku, side, -, place of the rule. pin: anchor, all SKUs, place of its rule, place among the pins."""
PRODUCTS, COMPANIONS = "products", "with"
BETWEEN = "\t"
"""Between the SKUs of a pin."""
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
Numbered = tuple[Rule, int]
"""A rule and the line of rules.toml at which it begins."""


@dataclass(frozen=True)
class Held:
    """A rule with its products as masks, shape (products,)."""

    rule: Rule
    line: int
    products: Mask
    companions: Mask

    @property
    def forbids_pairs(self) -> bool:
        return self.rule.action == "never_together" or (self.rule.action == "exclude" and bool(self.rule.companions))

    @property
    def excludes(self) -> bool:
        return self.rule.action == "exclude" and not self.rule.companions

    def covers(self, region: str, segment: str) -> bool:
        return region in (self.rule.regions or [region]) and segment in (self.rule.segments or [segment])


@dataclass(frozen=True)
class Shop:
    """The catalogue by number; products are numbered in the order of their SKUs."""

    rows: pa.Table
    """As SCHEMA."""
    rules: Sequence[Numbered]
    """Those that hold, each with its line; a rule's place here is its `number` in `rows`."""

    @cached_property
    def _products(self) -> pa.Table:
        return self._of("product").sort_by("sku")

    @cached_property
    def skus(self) -> pa.Array:
        return self._products["sku"].combine_chunks()

    @cached_property
    def category(self) -> Ints:
        """Shape (products,): number of the finest category; a product without one has a number of its own."""
        number, names = cells.codes(self._products["other"])
        unknown = np.asarray([name == "" for name in names.to_pylist()], bool)[number]
        number[unknown] = len(names) + np.arange(int(unknown.sum()), dtype=np.int32)
        return number

    def prices(self, region: str) -> Floats:
        """Shape (products,): minor units; NaN where none is known."""
        here = self._of("price").filter(pc.equal(self._of("price")["other"], region))
        found = np.full(len(self.skus), np.nan)
        place = self.numbers(here["sku"])
        found[place[place >= 0]] = here["number"].to_numpy()[place >= 0]
        return found

    @cached_property
    def agreed(self) -> NDArray[np.int64]:
        """Sorted keys (`pair_key`) of pairs whose buyers are alike."""
        return self._pairs("agreed")

    @cached_property
    def apart(self) -> NDArray[np.int64]:
        """Sorted keys (`pair_key`) of substitutes for each other that are rarely in one order."""
        return self._pairs("apart")

    def _pairs(self, kind: str) -> NDArray[np.int64]:
        rows = self._of(kind)
        left, right = self.numbers(rows["sku"]), self.numbers(rows["other"])
        known = (left >= 0) & (right >= 0)
        return np.unique(self.pair_key(left[known], right[known]))

    @cached_property
    def substitutes(self) -> Ints:
        """Shape (products, most): what may stand in for each, best first; -1 fills."""
        rows = self._of("alike").sort_by([("sku", "ascending"), ("number", "ascending")])
        left, right = self.numbers(rows["sku"]), self.numbers(rows["other"])
        known = (left >= 0) & (right >= 0)
        left, right = left[known], right[known]
        place = places(left)
        found = np.full((len(self.skus), int(place.max(initial=-1)) + 1), -1, np.int32)
        found[left, place] = right
        return found

    @cached_property
    def held(self) -> list[Held]:
        """The rules, in the order of the file."""
        rows = self._of("rule")
        number, side = rows["number"].to_numpy(), rows["other"].to_numpy(zero_copy_only=False)
        item = self.numbers(rows["sku"])
        sides = {}
        for place in range(len(self.rules)):
            for name in (PRODUCTS, COMPANIONS):
                mask = np.zeros(len(self.skus), bool)
                mask[item[(number == place) & (side == name)]] = True
                sides[place, name] = mask
        return [
            Held(rule, line, sides[place, PRODUCTS], sides[place, COMPANIONS])
            for place, (rule, line) in enumerate(self.rules)
        ]

    @cached_property
    def pins(self) -> list[Pin]:
        """In the order of the file."""
        rows = self._of("pin").sort_by("number")
        columns = (rows[name].to_pylist() for name in ("sku", "other", "more"))
        return [Pin(anchor, tuple(skus.split(BETWEEN)), int(rule)) for anchor, skus, rule in zip(*columns, strict=True)]

    def numbers(self, skus: pa.ChunkedArray | pa.Array) -> Ints:
        """The number of each product, -1 where the catalogue has it not."""
        if isinstance(skus, pa.ChunkedArray):
            skus = skus.combine_chunks()
        return pc.fill_null(pc.index_in(skus, self.skus), -1).to_numpy(zero_copy_only=False).astype(np.int32)

    def pair_key(self, left: Ints, right: Ints) -> NDArray[np.int64]:
        low, high = np.minimum(left, right).astype(np.int64), np.maximum(left, right).astype(np.int64)
        return low * len(self.skus) + high

    def _of(self, kind: str) -> pa.Table:
        return self.rows.filter(pc.equal(self.rows["kind"], kind))


def rows(
    kind: str,
    sku: pa.ChunkedArray,
    other: pa.ChunkedArray,
    more: pa.ChunkedArray | None = None,
    number: pa.ChunkedArray | None = None,
) -> pa.Table:
    """Rows of SCHEMA of one kind; what is not given is null."""
    given = {"kind": pa.repeat(kind, len(sku)), "sku": sku, "other": other, "more": more, "number": number}
    columns = [
        pa.nulls(len(sku), field.type) if given[field.name] is None else given[field.name].cast(field.type)
        for field in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


def places(groups: Ints) -> NDArray[np.int64]:
    """0, 1, 2 … within each run of the same group."""
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(firsts, np.diff(np.append(firsts, len(groups))))


def products(rows: pa.Table) -> Iterable[Product]:
    """The products among `rows`, as rules know them."""
    found = rows.filter(pc.equal(rows["kind"], "product"))
    columns = (found[name].to_pylist() for name in ("sku", "more", "other"))
    return (Product(sku, brand or "", category or "") for sku, brand, category in zip(*columns, strict=True))


def with_rules(rows: pa.Table, resolved: Sequence[Resolved]) -> pa.Table:
    """`rows` with a row for each product that each rule names, and for each pin."""
    named = [
        ("rule", sku, side, None, place)
        for place, rule in enumerate(resolved)
        for side, skus in ((PRODUCTS, rule.products), (COMPANIONS, rule.companions))
        for sku in sorted(skus)
    ] + [
        ("pin", pin.anchor, BETWEEN.join(pin.skus), str(pin.rule), place) for place, pin in enumerate(pinned(resolved))
    ]
    columns = list(zip(*named, strict=True)) or [[]] * len(SCHEMA)
    added = pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
    return pa.concat_tables([rows.cast(SCHEMA), added])


def to_bytes(table: pa.Table) -> bytes:
    """`table` in Arrow's stream format, compressed: a shuffle would pay for every byte again and again."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(blob: bytes | pa.Buffer) -> pa.Table:
    """What `to_bytes` made."""
    with pa.ipc.open_stream(blob) as reader:
        return reader.read_all()
