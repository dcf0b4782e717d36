"""What each job reads and writes, and how many rows of a day a table holds: from facts to what is published."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa

from tandem.regions import Region
from tandem.settings import Settings
from warehouse import lake
from warehouse.tables import TABLES


class Flow(NamedTuple):
    """The tables of one job."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


ORDERS = ("sales_lines", "customers")
JOBS: Mapping[str, Flow] = {
    "segments": Flow((*ORDERS, "products"), ("segment_members", "segment_models", "segment_decisions")),
    "affinity": Flow((*ORDERS, "segment_members"), ("affinity",)),
    "substitutes": Flow((*ORDERS, "products", "prices"), ("substitutes", "neighbours")),
    "elasticity": Flow((*ORDERS, "products"), ("elasticities",)),
    "ranking": Flow((*ORDERS, "products", "substitutes"), ("rankings", "ranking_models")),
    "bundles": Flow(
        (
            *(*ORDERS, "products", "prices", "segment_members", "segment_decisions"),
            *("rankings", "substitutes", "neighbours"),
        ),
        ("bundles", "bundle_sets"),
    ),
    "pricing": Flow(("sales_lines", "products", "prices", "stock", "elasticities", "bundle_sets"), ("bundles",)),
    "evaluation": Flow(
        (*ORDERS, "products", "segment_decisions", "elasticities", "ranking_models", "exposures", "outcomes"),
        ("evaluations",),
    ),
}
"""In the order in which each finds what it reads; what a job reads of its own tables is left out."""
PUBLISHED = ("bundles", "bundle_sets", "products", "prices", "stock")
"""What `stage` and `catch-up` bring to a region."""


class Dataset(NamedTuple):
    """A table as OpenLineage names it (openlineage.io/docs/spec/naming)."""

    namespace: str
    name: str
    version: int | None = None


def dataset(settings: Settings, table: str, version: int | None = None) -> Dataset:
    """A table of the lake: `file` and its path, or its bucket and key."""
    scheme, _, rest = lake.uri(settings, table).rpartition("://")
    if not scheme:
        return Dataset("file", str(Path(rest).absolute()), version)
    bucket, _, key = rest.partition("/")
    return Dataset(f"{scheme}://{bucket}", key, version)


def of_region(region: Region) -> list[Dataset]:
    """What publishing writes in a region: its Redis, without its password, and its files behind the CDN."""
    redis = urlsplit(region.redis_url)
    store = region.object_store
    return [
        Dataset(f"redis://{redis.hostname}:{redis.port or 6379}", "tandem:release"),
        Dataset(f"s3://{store.bucket}", region.name),
    ]


def rows(settings: Settings, table: str, version: int | None, as_of: date) -> int:
    """Rows of a table at a version, of one with days only those of `as_of`, as its log says."""
    added = pa.table(lake.open_table(settings, table, version).get_add_actions(flatten=True))
    held = added.to_pylist()
    if "as_of" in TABLES[table].partitions:
        held = [file for file in held if str(file["partition.as_of"]) == f"{as_of}"]
    return sum(file["num_records"] or 0 for file in held)
