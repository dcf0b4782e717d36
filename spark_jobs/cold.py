"""Thin and cold products: every product that may be bundled gets an answer, and the answer says what it rests on.

Counts come first (segment, region, global: `bundles`). Where no set of a product has k customers, the products most
like it answer: `category` where these are of its own finest category, else `content`. Where nothing is known of it
either, what is popular in the region does (`popular`).

Rule 7 for these: a pair says that the companion was bought by at least k distinct customers together with products of
the kind, or at all; the product's own few orders have no say, so no basket shows through. `orders_together` is 0, as
nothing is claimed of the two together; `customers_together` are the customers of that level. There is no discount.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs import bundles, delta, order_files, parquet_files, substitutes
from spark_jobs.facts import Job
from spark_jobs.kernels import answered, bundle_rows, content, later, protocol, votes
from spark_jobs.kernels import shelf as shelves
from spark_jobs.kernels import shop as shops
from spark_jobs.kernels.cells import Cell, Ints
from spark_jobs.kernels.protocol import Measure
from spark_jobs.kernels.shelf import Shelf
from spark_jobs.kernels.shop import Shop
from tandem.rules import Cold, Rules
from tandem.segments import ALL

ANSWERS = """region string, anchor string, companion string, level int, confidence double, customers long,
lift double, place int"""
ANSWERED, OWN = "answered", "own"
"""Kinds of `bundles.PACKED`: rows of ANSWERS, and what `bundles.LISTED` calls own."""
NOTHING = pa.schema([("bundle_id", pa.string()), ("evidence", bundle_rows.EVIDENCE)]).empty_table()


def completed(job: Job, lists: DataFrame, known: DataFrame) -> DataFrame:
    """Answers for the products that `lists` (rows of `bundles.LISTED`) have no list for, written: rows like these.

    `known` as `bundles.catalogue`. A task a region: about 200 bytes an answer, 400 a bundle, and the catalogue.
    """
    own = lists.select("region", F.lit(ALL), F.lit(OWN), "own")
    values = answers(job, lists).union(own).union(known.select(F.lit(ALL), F.lit(ALL), "kind", "packed"))
    return bundles.by_region(job, values).mapInArrow(_writer(job), bundles.LISTED)


def _writer(job: Job) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    held, rules, files = bundles.holding(job), job.rules, bundles.Files.of_day(job)

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        values = bundles.by_place(batches)
        for (region, _), found in values.items():
            if ANSWERED in found:
                shop = Shop(values[ALL, ALL][bundles.SHOP], held)
                rows = answered.rows(found[ANSWERED], found.get(OWN, NOTHING), shop, rules, region)
                yield files.write(region, rows)

    return write


def answers(job: Job, lists: DataFrame) -> DataFrame:
    """ANSWERS for the products that may be bundled and have no list for a whole region, as rows of `bundles.PACKED`.

    `lists`: rows of `bundles.LISTED`. One task: about 120 bytes a line of an order, 300 a product.
    """
    products = substitutes.described(job).unionByName(lists.select("region", "own"), allowMissingColumns=True)
    bought = substitutes.in_one(order_files.packed(job))
    return bought.cogroup(substitutes.in_one(products)).applyInArrow(_answerer(job), bundles.PACKED)


def _answerer(job: Job) -> Callable[[pa.Table, pa.Table], pa.Table]:
    k = {region.name: region.k for region in job.regions.region}
    rules, prices = job.rules, parquet_files.held(job.settings, "prices", job.inputs.get("prices"))
    types = (pa.string(), pa.string(), pa.string(), pa.binary())

    def answer(packed: pa.Table, products: pa.Table) -> pa.Table:
        bought = order_files.orders(packed, rules.learning.max_basket)
        listed = products.filter(pc.is_valid(products["region"]))
        held = shelves.shelf(bought, products.filter(pc.is_null(products["region"])))
        asked = dict.fromkeys(k, held.usable)
        for region, own in zip(listed["region"].to_pylist(), listed["own"], strict=True):
            asked[region] = held.usable & ~_among(held, shops.from_bytes(own.as_buffer())["anchor"])
        priced = {region: _among(held, prices.rows(["sku"], region=region)["sku"]) for region in k}
        found = _answers(held, bought, asked, priced, k, rules)
        rows = [(table["region"][0].as_py(), ALL, ANSWERED, shops.to_bytes(table)) for table in found]
        columns = zip(types, zip(*rows, strict=True) if rows else [()] * 4, strict=True)
        return pa.table([pa.array(values, kind) for kind, values in columns], delta.names(bundles.PACKED))

    return answer


Masks = Mapping[str, NDArray[np.bool_]]
"""By region: some items of the shelf."""


def _answers(
    held: Shelf, bought: pa.Table, asked: Masks, priced: Masks, k: dict[str, int], rules: Rules
) -> Iterator[pa.Table]:
    """ANSWERS for what is `asked`, a table for each region that has some, of what is `priced` there."""
    anchors = np.flatnonzero(np.any(list(asked.values()), axis=0)).astype(np.int32)
    if not len(anchors) or not len(bought):
        return
    found, level = by_likeness(held, read(held, anchors), anchors, min(k.values()), rules)
    for region, careful in k.items():
        here = asked[region][anchors]
        fine = (found.companion >= 0) & (found.customers >= careful) & priced[region][np.maximum(found.companion, 0)]
        best = _first(votes.Votes(*(part[here] for part in found)), fine[here], rules.cold.per_anchor)
        kept = level[here]
        nothing = best.companion[:, 0] < 0
        if nothing.any():
            lacking = anchors[here][nothing]
            common = by_popularity(held, lacking, bought["region"], region, priced[region], careful, rules)
            for part, instead in zip(best, common, strict=True):
                part[nothing] = instead
            kept[nothing] = votes.POPULAR
        if len(table := _table(region, anchors[here], kept, best, held)):
            yield table


def _among(held: Shelf, skus: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which items of the shelf are among `skus`."""
    return pc.is_in(held.cell.skus.cast(pa.string()), skus.combine_chunks()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def read(held: Shelf, anchors: Ints) -> content.Vectors:
    """What is written of `anchors` and of those who may vote."""
    wanted = held.usable & (held.cell.item_counts >= votes.MIN_ORDERS)
    wanted[anchors] = True
    return content.vectors(held.facts, wanted)


def by_likeness(
    held: Shelf, written: content.Vectors, anchors: Ints, min_customers: int, rules: Rules
) -> tuple[votes.Votes, Ints]:
    """What the products most like each of `anchors` are bought with, and each anchor's level; see `kernels.votes`."""
    orders = np.where(held.usable, held.cell.item_counts, 0).astype(np.int32)
    near, likeness = content.similar(written, orders, votes.MIN_ORDERS, votes.VOTERS, anchors)
    voters, level = votes.voters(anchors, near, likeness, held.category)
    found = votes.votes(
        held.cell,
        anchors,
        voters,
        likeness,
        usable=held.usable,
        category=held.category,
        min_customers=min_customers,
        min_lift=rules.pricing.min_lift,
        top=rules.cold.per_anchor + votes.SPARE,
    )
    return found, level


def by_popularity(
    held: Shelf,
    anchors: Ints,
    order_region: pa.ChunkedArray,
    region: str,
    priced: NDArray[np.bool_],
    min_customers: int,
    rules: Rules,
) -> votes.Votes:
    """What is most bought in `region`, or everywhere where the region has nothing that enough customers bought."""
    sellable = held.usable & priced
    for orders in (_of_region(held, order_region, region), held.cell):
        counts = np.where(sellable, orders.item_counts, 0)
        found = votes.popular(
            anchors,
            counts,
            votes.buyers(orders),
            orders.orders,
            category=held.category,
            min_customers=min_customers,
            top=rules.cold.per_anchor,
        )
        if (found.companion[:, 0] >= 0).any():
            break
    return found


def _of_region(held: Shelf, order_region: pa.ChunkedArray, region: str) -> Cell:
    here = pc.equal(order_region, region).to_numpy(zero_copy_only=False)
    return shelves.part(held.cell, here[held.given])


def _first(found: votes.Votes, fine: NDArray[np.bool_], top: int) -> votes.Votes:
    """The first `top` of each row that are `fine`."""
    place = np.where(fine, np.cumsum(fine, axis=1) - 1, top)
    kept = votes.Votes(
        np.full((len(fine), top), -1, np.int32), np.zeros((len(fine), top)), np.zeros((len(fine), top), np.int32)
    )
    row, column = np.nonzero(place < top)
    for part, source in zip(kept, found, strict=True):
        part[row, place[row, column]] = source[row, column]
    return kept


def _table(region: str, anchors: Ints, level: Ints, found: votes.Votes, held: Shelf) -> pa.Table:
    """Rows of ANSWERS."""
    skus = held.cell.skus.cast(pa.string())
    kinds = (pa.string(), pa.string(), pa.string(), pa.int32(), pa.float64(), pa.int64(), pa.float64(), pa.int32())
    popularity = held.cell.item_counts / max(held.cell.orders, 1)
    row, place = np.nonzero(found.companion >= 0)
    companion, share = found.companion[row, place], found.share[row, place]
    lift = np.where(level[row] == votes.POPULAR, 1.0, share / np.maximum(popularity[companion], 1e-12))
    columns = (
        pa.array([region] * len(row), pa.string()),
        skus.take(pa.array(anchors[row])),
        skus.take(pa.array(companion)),
        level[row],
        share,
        found.customers[row, place].astype(np.int64),
        lift,
        (place + 1).astype(np.int32),
    )
    return pa.table(list(columns), schema=pa.schema(list(zip(delta.names(ANSWERS), kinds, strict=True))))


def evaluated(job: Job) -> list[Measure]:
    """Rows of `evaluations`: a tenth of the known products lose their history; do later orders hold what is answered?

    hit@5 and tail@5 as `kernels.protocol` has them, of those products as anchors: `cold` by share alone, as rankings
    are judged; `cold_content` with their categories hidden too; `cold_bundles` as published (other needs only, no less
    than chance); against what is popular (`cold_popularity`), also in their own category (`cold_category_popularity`).
    `answered/cold`: share of them that get an answer.
    """
    rules, k = job.rules, max(region.k for region in job.regions.region)
    return substitutes.asked_later(job, lambda found: judged(found, rules, k))


def judged(split: later.Split, rules: Rules, min_customers: int) -> Iterator[tuple[str, protocol.Estimate]]:
    """Each measure of `evaluated` with its estimate."""
    trial = protocol.trial_of(split.before, split.after)
    known = trial.known[split.held.usable[trial.known]]
    if not len(known) or not len(trial.asked.anchor):
        return
    hidden = later.hidden(known)
    held = split.held._replace(cell=later.without_items(split.held.cell, hidden))
    told = msgspec.structs.replace(rules, cold=Cold(per_anchor=protocol.NDCG_FIRST))
    freely = msgspec.structs.replace(told, pricing=msgspec.structs.replace(rules.pricing, min_lift=0.0))
    untold = held._replace(facts=held.facts._replace(categories=[""] * len(held.usable)))
    anything = held._replace(category=np.full(len(held.usable), -1, np.int32))
    counts = np.where(held.usable, held.cell.item_counts, 0).astype(np.int32)
    top, written = protocol.NDCG_FIRST, read(held, hidden)
    rankings = {
        "cold": everything(anything, written, hidden, min_customers, freely),
        "cold_content": everything(anything, read(untold, hidden), hidden, min_customers, freely),
        "cold_bundles": everything(held, written, hidden, min_customers, told),
        "cold_popularity": np.tile(protocol.popular(counts, top), (len(hidden), 1)),
        "cold_category_popularity": later.popular_of_category(counts, held.category, held.usable, top)[hidden],
    }
    hits = {name: _asked(trial, hidden, lists) for name, lists in rankings.items()}
    mask = np.isin(trial.known[trial.asked.anchor], hidden)
    measures = {f"{name}/{subject}": each[mask] for subject, part in hits.items() for name, each in part.items()}
    measures["hit@5/cold_over_popularity"] = measures["hit@5/cold"] - measures["hit@5/cold_popularity"]
    yield from protocol.estimates(measures, trial.asked.customer[mask]).items()
    share = float((rankings["cold_bundles"][:, 0] >= 0).mean())
    yield "answered/cold", protocol.Estimate(share, share, share, len(hidden))


def everything(held: Shelf, written: content.Vectors, anchors: Ints, min_customers: int, rules: Rules) -> Ints:
    """Shape (anchors, per_anchor): companions of each as `answers` gives them, all regions as one; -1 none."""
    found, _ = by_likeness(held, written, anchors, min_customers, rules)
    common = votes.popular(
        anchors,
        np.where(held.usable, held.cell.item_counts, 0),
        votes.buyers(held.cell),
        held.cell.orders,
        category=held.category,
        min_customers=min_customers,
        top=rules.cold.per_anchor,
    )
    own = found.companion[:, : rules.cold.per_anchor]
    return np.where(own[:, :1] >= 0, own, common.companion)


def _asked(trial: protocol.Trial, anchors: Ints, companions: Ints) -> dict[str, NDArray[np.float64]]:
    """Hits and hits in the tail of every query; only those of `anchors` mean anything."""
    lists = np.full((len(trial.known), companions.shape[1]), -1, np.int32)
    numbers = np.where(companions >= 0, trial.number[np.maximum(companions, 0)], -1)
    lists[trial.number[anchors]] = _packed(numbers)
    answers = protocol.ask(trial.asked, lists)
    return {"hit@5": answers.hit, "tail@5": answers.tail}


def _packed(lists: Ints) -> Ints:
    """The same rows with what is missing (-1) at their ends."""
    return np.take_along_axis(lists, np.argsort(lists < 0, axis=1, kind="stable"), axis=1)
