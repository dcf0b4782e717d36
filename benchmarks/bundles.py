"""Frequent sets of 2 to 4 products: Tandem's miner against Spark MLlib's FP-growth, for the same support.

`make bench-bundles`, or `python -m benchmarks.bundles --orders 100000 --json FILE --picture FILE`. Both read the same
Parquet file in one warm Spark session, in turn; every set and its count are compared, without rules and with the rule
that no two products share a category. Starting Spark is told apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import _sets, _told
from benchmarks._told import Row
from spark_jobs import session
from tandem.settings import Settings

FLOORS = {"fp_growth/sets": 1.0, "fp_growth/sets_with_rules": 1.0}
LARGEST = 4
CATEGORIES = 40


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what `run` gives."""
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def compare(
    spark: Any, folder: Path, orders: int, items: int, min_orders: int, rounds: int
) -> tuple[list[Row], dict[str, float]]:
    """Both in turn, `rounds` times after one to warm up; raises AssertionError where they differ."""
    made = _sets.baskets(orders, items)
    category = _sets.categories(made, CATEGORIES)
    pq.write_table(pa.table({"skus": pa.array(made, pa.list_(pa.string()))}), folder / "orders.parquet")
    frame = spark.read.parquet(str(folder / "orders.parquet"))
    runs: dict[str, Callable[[], _sets.Found]] = {
        "fp_growth": lambda: _sets.collected(_sets.fp_growth(frame, min_orders, LARGEST)),
        "sets": lambda: _sets.collected(_sets.tandem(frame, min_orders, LARGEST)),
        "sets_with_rules": lambda: _sets.collected(_sets.tandem(frame, min_orders, LARGEST, category)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        found = {}
        for name, run in runs.items():
            took, found[name] = timed(run)
            seconds[name] += [took] if number else []
            print(f"  {name:<18} {took:8.2f} s{'' if number else '  (warm-up)'}", flush=True)
        ruled = _sets.allowed(found["fp_growth"], category)
        assert not _sets.differences(found["fp_growth"], found["sets"]), "without rules"
        assert not _sets.differences(ruled, found["sets_with_rules"]), "with rules"
    sizes = [sum(len(skus) == size for skus in found["sets"]) for size in (2, 3, 4)]
    print(f"the same sets in every round: {sizes} of 2, 3 and 4 products, {len(ruled)} of all that rules allow")
    label = f"{orders:,} orders, support {min_orders}"
    names = {"fp_growth": "MLlib FP-growth", "sets": "tandem sets", "sets_with_rules": "tandem sets, with rules"}
    rows = [Row(f"{names[name]}, {label}", values) for name, values in seconds.items()]
    medians = dict(zip(seconds, (row.value for row in rows), strict=True))
    return rows, {ratio: medians["fp_growth"] / medians[ratio.partition("/")[2]] for ratio in FLOORS}


def main() -> None:
    """Run, and print what was found; exits with an error where sets differ or FP-growth is faster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--min-orders", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(home=folder / "home", spark_driver_memory="3g")
        session.fetch(settings)
        started, spark = timed(lambda: session.create(settings, "bench bundles"))
        print(f"Spark started in {started:.1f} s (not counted below)")
        rows, ratios = compare(spark, folder, asked.orders, asked.items, asked.min_orders, asked.rounds)
        spark.stop()
    print(_told.table(rows, ratios, FLOORS))
    if asked.json:
        _told.write_json(asked.json, rows, ratios)
    if asked.picture:
        _told.draw(asked.picture, rows, "Frequent sets of 2 to 4 products")
    if missed := [name for name, floor in FLOORS.items() if ratios[name] < floor]:
        raise SystemExit(f"slower than FP-growth: {', '.join(missed)}")


if __name__ == "__main__":
    main()
