"""What else counts pairs: each reads the same files, counts what is bought together and keeps the top of each anchor.

Rivals are spared the shop's texts: order ids and SKUs are numbers here, and are read as such. They count every order
of the files that is in the window, and give for each anchor the sum of the orders of its `top` companions, so that
results can be compared whatever the order of ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Sums = Mapping[int, int]
"""Anchor to the sum of orders_both over its best companions."""


def duckdb_top(files: Sequence[str], before: Any, top: int, threads: int) -> Sums:
    """A self-join, each pair counted once; DuckDB's own top-n aggregate."""
    import duckdb

    with duckdb.connect(config={"threads": threads, "memory_limit": "8GB"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            """CREATE TEMP TABLE lines AS SELECT CAST(order_id AS INTEGER) AS o, CAST(sku AS INTEGER) AS s
            FROM read_parquet($1, hive_partitioning = false) WHERE ordered_at < $2""",
            [list(files), before],
        )
        return dict(
            connection.execute(
                """WITH pairs AS (
                    SELECT a.s AS x, b.s AS y, count(*) AS c FROM lines a JOIN lines b ON a.o = b.o AND a.s < b.s
                    GROUP BY ALL),
                both_ways AS (SELECT x, c FROM pairs UNION ALL SELECT y, c FROM pairs)
                SELECT x, CAST(list_sum(max(c, $1)) AS BIGINT) FROM both_ways GROUP BY x""",
                [top],
            ).fetchall()
        )


def polars_top(files: Sequence[str], before: Any, top: int) -> Sums:
    """A self-join in Polars' lazy engine, each pair counted once."""
    import polars as pl

    lines = (
        pl.scan_parquet(list(files), hive_partitioning=False)
        .filter(pl.col("ordered_at") < before)
        .select(pl.col("order_id").cast(pl.Int32).alias("o"), pl.col("sku").cast(pl.Int32).alias("s"))
        .collect()
        .lazy()
    )
    pairs = (
        lines.join(lines, on="o", suffix="_b")
        .filter(pl.col("s") < pl.col("s_b"))
        .group_by("s", "s_b")
        .len("c")
        .collect()
        .lazy()
    )
    both = pl.concat([pairs.select("s", "c"), pairs.select(pl.col("s_b").alias("s"), "c")])
    best = both.group_by("s").agg(pl.col("c").top_k(top).sum()).collect()
    return dict(zip(best["s"].to_list(), best["c"].to_list(), strict=True))


def implicit_top(files: Sequence[str], before: Any, top: int, threads: int) -> Sums:
    """implicit's CosineRecommender: the `top` most similar of each item (by cosine; no sum of counts to compare)."""
    from implicit.nearest_neighbours import CosineRecommender
    from scipy.sparse import csr_matrix

    columns = ["order_id", "sku", "ordered_at"]
    held = pa.concat_tables([pq.ParquetFile(file).read(columns=columns) for file in files])
    held = held.filter(pc.less(held["ordered_at"], pa.scalar(before, held["ordered_at"].type)))
    order = pc.cast(held["order_id"], pa.int32()).to_numpy()
    item = pc.cast(held["sku"], pa.int32()).to_numpy()
    bought = csr_matrix((np.ones(len(item), np.float32), (order, item)))
    model = CosineRecommender(K=top + 1, num_threads=threads)  # an item is its own best neighbour
    model.fit(bought, show_progress=False)
    return {item: int(count) for item, count in enumerate(np.diff(model.similarity.indptr))}


def spark_pairs(spark: Any, files: Sequence[str], before: Any) -> tuple[int, int]:
    """Spark's own self-join and groupBy, counts alone: pairs and the sum of their counts."""
    from pyspark.sql import functions as F

    lines = (
        spark.read.parquet(*files)
        .where(F.col("ordered_at") < F.lit(before))
        .select(F.col("order_id").cast("int").alias("o"), F.col("sku").cast("int").alias("s"))
    )
    other = lines.select(F.col("o").alias("p"), F.col("s").alias("t"))
    pairs = lines.join(other, (F.col("o") == F.col("p")) & (F.col("s") < F.col("t"))).groupBy("s", "t").count()
    row = pairs.agg(F.count("*"), F.sum("count")).first()
    return int(row[0]), int(row[1])
