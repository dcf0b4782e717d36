"""The files of a release into a bucket: CPU for an anchor, in shards or in an object each; what encodings cost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from benchmarks._told import Row
from cdn import keys, shards
from cdn.files import BROTLI_QUALITY, GZIP, RELEASE, Encoding, File, brotli
from cdn.shards import Product
from cdn.store import ObjectStore
from tandem.bundle import AnchorList, Bundle, Component

T = TypeVar("T")
REGION = "bench"
SHARED, SINGLE = "20171231-0123456789ab", "20171231-0123456789ac"
EACH = 400
"""Anchors put as an object each, for the CPU of one."""
QUALITIES = (4, 5, 6, 7, 9, 11)
LOOKED_AT = 4
"""Shards that the qualities of brotli are compared by."""
WORDS = [f"{random.Random(number).getrandbits(24):x}" for number in range(4_000)]


class Again(Exception):
    """What lay there was written once more."""


def measured(store: ObjectStore, lists: Sequence[AnchorList], count: int) -> tuple[list[Row], dict[str, float]]:
    """CPU of this process for an anchor: to compress, write and look for files. Raises Damaged for a wrong one.

    `put_each/shards` compares what lies there in gzip and brotli with what lies there in both, too.
    """
    store.ensure_bucket()
    single = [_shard(0, 1, [each]) for each in lists[:EACH]]
    shared = _shards(lists, count)
    for encoding in RELEASE:
        _packed(single, encoding)
    packing = {each.name: _cpu(partial(_packed, shared, each))[0] / len(lists) for each in RELEASE}
    alone = _cpu(lambda: store.put_release(REGION, SINGLE, _keyed(SINGLE, single)))[0] / EACH
    files = _keyed(SHARED, shared)
    first = _cpu(lambda: store.put_release(REGION, SHARED, files))[0] / len(lists)
    again, written = _cpu(lambda: store.put_release(REGION, SHARED, files))
    if written:
        raise Again(f"{written} objects were written again")
    store.check((key, file.sha) for key, file in files.items())
    rows = [
        _for_an_anchor("an object of its own in each encoding: two PUTs", alone),
        _for_an_anchor(f"one of {count} shards: two PUTs a shard", first),
        _for_an_anchor("a shard that is there", again / len(lists)),
        *(_for_an_anchor(f"compressed once a release: {name}", seconds) for name, seconds in packing.items()),
        *(Row(f"shards in {each.name}", [len(file.body(each)) / 1000 for file in shared], "kB") for each in RELEASE),
    ]
    ratios = {"put_each/shards": alone / first, "put_each_in_gzip_alone/shards": alone / len(RELEASE) / first}
    return rows + _qualities(shared[:LOOKED_AT]), ratios


def _for_an_anchor(name: str, seconds: float) -> Row:
    return Row(f"an anchor, {name}", [1e6 * seconds], "µs CPU")


def _qualities(made: Sequence[File]) -> list[Row]:
    """What each quality of brotli gives of gzip's bytes, and takes of its time."""

    def packed(pack: Callable[[bytes], bytes]) -> tuple[float, int]:
        return _cpu(lambda: sum(len(pack(file.content)) for file in made))

    seconds, size = packed(GZIP.pack)
    rows = []
    for quality in QUALITIES:
        cpu, held = packed(partial(brotli, quality=quality))
        name = f"brotli {quality}{', as published' if quality == BROTLI_QUALITY else ''}"
        rows.append(Row(f"{name}: bytes", [100 * held / size], "% of gzip's"))
        rows.append(Row(f"{name}: CPU", [100 * cpu / seconds], "% of gzip's"))
    return rows


def _packed(made: Sequence[File], encoding: Encoding) -> None:
    for file in made:
        file.body(encoding)


def _keyed(release: str, made: Sequence[File]) -> dict[str, File]:
    return {keys.shard_key(REGION, release, number): file for number, file in enumerate(made)}


def _shards(lists: Sequence[AnchorList], count: int) -> list[File]:
    own: list[list[AnchorList]] = [[] for _ in range(count)]
    for each in lists:
        own[keys.shard_of(each.anchor, count)].append(each)
    return [_shard(number, count, some) for number, some in enumerate(own)]


def _shard(number: int, count: int, lists: Sequence[AnchorList]) -> File:
    """Products and bundles as in a shop of 50,000 products: each bundle is its anchor and another product."""
    bundles = {
        name: Bundle(name, (Component(each.anchor), Component(_other(name))), 300, 12, 4.2)
        for each in lists
        for name in (place.bundle_id for place in each.bundles)
    }
    products = {part.sku: _product(part.sku) for each in bundles.values() for part in each.components}
    return shards.shard_file(REGION, SHARED, number, count, products, bundles, lists)


def _other(bundle_id: str) -> str:
    return f"{1_000_000 + int(bundle_id, 16) % 50_000}"


def _product(sku: str) -> Product:
    chance = random.Random(sku)
    title, brand = " ".join(chance.choices(WORDS, k=5)), chance.choice(WORDS)
    return Product(sku, title, brand, " > ".join(chance.choices(WORDS[:40], k=3)), "symbols/grocery.svg")


def _cpu(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of CPU, of all threads, and what was made."""
    start = time.process_time()
    made = work()
    return time.process_time() - start, made
