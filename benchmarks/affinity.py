"""Pair counting against DuckDB, Polars, implicit and Spark's own join, on a synthetic shop.

`make bench-affinity`, or `python -m benchmarks.affinity --baskets 100000 --skip polars --json FILE --picture FILE`.

*One level*: counts and top 50 of everything together. *Full*: 18 cells, 3 regions and everything, orders and distinct
customers, all measures, top 50, written to Delta and read back. All in turn in one run, in one warm Spark session;
Tandem's runs include reading the lake and committing what was found. Starting up is told apart.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc

from benchmarks import _rivals, _shop, _told
from benchmarks._told import Row
from spark_jobs import affinity, build, order_files, session
from spark_jobs.facts import Job
from spark_jobs.kernels import days, increments, lines, pairs
from tandem.settings import Settings
from warehouse import lake
from warehouse.views import connect

THREADS = 2
TOP = 50
K = 5
JOINED = 100_000
"""Baskets at which Spark's own join is a rival: it grows too slow for more."""
FLOORS = {
    "self_join/one_level": 12,
    "duckdb/one_level": 3,
    "polars/one_level": 4,
    "implicit/one_level": 1,
    "self_join/full": 4,
    "duckdb/full": 1.8,
    "recount/one_day": 10,
}
RIVALS = ("duckdb", "polars", "implicit", "self_join")
BEFORE = dt.datetime.combine(_shop.AS_OF, dt.time(), dt.UTC)


class Bench:
    """One Spark session, and the shops that were made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Settings(home=folder / "home", spark_driver_memory="3g", spark_master=f"local[{THREADS}]")
        session.fetch(self.home)
        start = time.perf_counter()
        self.spark = session.create(self.home, "bench affinity")
        self.spark.range(1).count()
        self.started = time.perf_counter() - start

    def shop(self, baskets: int, name: str, *, k: int, damping: float) -> Settings:
        """A shop of `baskets`, made once; each configuration has a folder of its own."""
        made = _shop.make(self.folder / f"shop-{baskets}", baskets)
        settings = msgspec.structs.replace(
            made, config=self.folder / f"config-{name}", spark_master=self.home.spark_master
        )
        _shop.configure(settings, k=k, damping=damping)
        return settings

    def job(self, settings: Settings) -> Job:
        return build.job_of(self.spark, settings, _shop.AS_OF)


def timed(runs: dict[str, list[float]], name: str, run: Callable[[], Any]) -> Any:
    """What `run` gives; its seconds are added to `runs`."""
    start = time.perf_counter()
    found = run()
    runs.setdefault(name, []).append(time.perf_counter() - start)
    print(f"  {name:<34} {runs[name][-1]:8.2f} s", flush=True)
    return found


def one_level(bench: Bench, settings: Settings) -> tuple[int, int]:
    """Tandem's counts and top 50 of everything together: rows, and the sum of their counts."""
    found = affinity.companions(bench.job(settings))
    return len(found), int(pc.sum(found["orders_both"]).as_py())


def check_one_level(bench: Bench, settings: Settings, theirs: _rivals.Sums) -> None:
    """Compare each anchor's counts of its top 50 with a rival's."""
    found = affinity.companions(bench.job(settings)).group_by("anchor").aggregate([("orders_both", "sum")])
    mine = {int(row["anchor"]): row["orders_both_sum"] for row in found.to_pylist()}
    assert mine == theirs, "the best companions' counts differ"


def full(bench: Bench, settings: Settings) -> tuple[int, int]:
    """Tandem's whole job, committed to the lake and read back: rows, and the most memory that a worker took."""
    done = affinity.write(bench.job(settings))
    assert done is not None
    with connect(settings, ("affinity",)) as connection:
        rows, levels, wrong = connection.execute(
            """SELECT count(*), count(DISTINCT (region, segment)),
                count(*) FILTER (orders_both > orders_anchor OR customers_both > orders_both OR rank > 50
                    OR support IS NULL OR lift IS NULL OR npmi IS NULL OR llr IS NULL)
            FROM affinity"""
        ).fetchone()
    assert (rows, levels, wrong) == (done.rows, 22, 0), (rows, done.rows, levels, wrong)
    return rows, done.peak_bytes


EXACT = """
WITH cells AS (
    SELECT region AS r, segment AS s, * FROM placed
    UNION ALL SELECT region, '*', * FROM placed
    UNION ALL SELECT '*', '*', * FROM placed),
counted AS (
    SELECT a.r, a.s, a.sku AS anchor, b.sku AS companion, count(*) AS orders, count(DISTINCT a.customer_id) AS customers
    FROM cells a JOIN cells b ON a.r = b.r AND a.s = b.s AND a.order_id = b.order_id AND a.region = b.region
    WHERE a.sku <> b.sku AND a.r = $1 GROUP BY ALL HAVING count(DISTINCT a.customer_id) >= $2)
SELECT count(*), count(*) FILTER (orders = orders_both AND customers = customers_both)
FROM counted JOIN affinity ON r = affinity.region AND s = affinity.segment AND counted.anchor = affinity.anchor
    AND counted.companion = affinity.companion
"""


def check_exact(settings: Settings) -> int:
    """Compare every row of the affinity table with DuckDB's count of the same level; gives how many rows that are."""
    with connect(settings, ("sales_lines", "segment_members", "affinity"), memory_limit="8GB") as connection:
        connection.execute(
            f"""CREATE TEMP TABLE placed AS SELECT region, segment, order_id, sku, customer_id FROM sales_lines
            JOIN segment_members USING (region, customer_id)
            WHERE as_of = DATE '{_shop.AS_OF}' AND ordered_at < TIMESTAMPTZ '{BEFORE}'"""
        )
        checked = 0
        for region in ("*", *_shop.REGIONS):
            found, same = connection.execute(EXACT, [region, K]).fetchone()
            (held,) = connection.execute("SELECT count(*) FROM affinity WHERE region = $1", [region]).fetchone()
            assert found == same == held, (region, found, same, held)
            checked += held
    return checked


def compare(bench: Bench, baskets: int, rounds: int, skip: set[str]) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Rivals and Tandem in turn; Tandem's first run, in which Spark warms up, is told apart."""
    all_pairs = bench.shop(baskets, "one-level", k=1, damping=0.0)
    published = bench.shop(baskets, "full", k=K, damping=0.2)
    files = [uri.removeprefix("file://") for uri in lake.open_table(all_pairs, "sales_lines").file_uris()]
    rivals: dict[str, Callable[[], _rivals.Sums]] = {
        "duckdb": partial(_rivals.duckdb_top, files, BEFORE, TOP, THREADS),
        "polars": partial(_rivals.polars_top, files, BEFORE, TOP),
        "implicit": partial(_rivals.implicit_top, files, BEFORE, TOP, THREADS),
    }
    label = f"{baskets:,}"
    runs: dict[str, list[float]] = {}
    timed(runs, f"tandem first run, {label}", partial(full, bench, published))
    one_level(bench, all_pairs)
    for _ in range(rounds):
        _, orders = timed(runs, f"tandem one level, {label}", partial(one_level, bench, all_pairs))
        timed(runs, f"tandem full, {label}", partial(full, bench, published))
        for name, run in rivals.items():
            if name in skip:
                continue
            theirs = timed(runs, f"{name} one level, {label}", run)
            if name != "implicit":
                assert sum(theirs.values()) == orders, f"{name} and Tandem differ"
            if name == "duckdb":
                check_one_level(bench, all_pairs, theirs)
    ratios = {
        f"{rival}/{own}": _median(runs, f"{rival} one level, {label}") / _median(runs, f"tandem {told}, {label}")
        for rival, own, told in (
            ("duckdb", "one_level", "one level"),
            ("polars", "one_level", "one level"),
            ("implicit", "one_level", "one level"),
            ("duckdb", "full", "full"),
        )
        if rival not in skip
    }
    return runs, ratios


def compare_join(bench: Bench, baskets: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Spark's own self-join, and the check that the full job's counts are exact at every level."""
    all_pairs = bench.shop(baskets, "one-level", k=1, damping=0.0)
    published = bench.shop(baskets, "full", k=K, damping=0.2)
    files = lake.open_table(all_pairs, "sales_lines").file_uris()
    label = f"{baskets:,}"
    runs: dict[str, list[float]] = {}
    for _ in range(rounds):
        timed(runs, f"tandem one level, {label}", partial(one_level, bench, all_pairs))
        timed(runs, f"tandem full, {label}", partial(full, bench, published))
        timed(runs, f"self_join one level, {label}", partial(_rivals.spark_pairs, bench.spark, files, BEFORE))
    print(f"  {check_exact(published):,} rows equal DuckDB's counts at their levels")
    join = _median(runs, f"self_join one level, {label}")
    return runs, {
        "self_join/one_level": join / _median(runs, f"tandem one level, {label}"),
        "self_join/full": join / _median(runs, f"tandem full, {label}"),
    }


def one_day(bench: Bench, baskets: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """A day more in ninety: pair counts that are kept, against the count of the whole window on the same one core.

    Both begin with orders as readers pack them. The first day's counts are made from nothing and told apart; after
    the last day they are compared, row by row, with counts of its window that are made from nothing.
    """
    settings = bench.shop(baskets, "full", k=K, damping=0.2)
    job = bench.job(settings)
    learning = job.rules.learning
    caps = {"max_basket": learning.max_basket, "max_item_orders": learning.max_item_orders}
    decay = lines.decay(_shop.AS_OF, learning.window_days, learning.half_life_days)
    before, after = (list(_parts(job, _shop.AS_OF + dt.timedelta(days=later))) for later in (0, 1))
    numbers = increments.Numbers()
    orders, people, cells, _ = lines.merged(before, decay=decay, **caps)
    regions_of = lines.regions_of(cells)
    window = numbers.window(orders, people)
    empty = increments.kept(window, np.zeros(window.orders, bool))
    none = np.empty(0, bool)
    label = f"{baskets:,}"
    runs: dict[str, list[float]] = {}
    counts, _ = timed(
        runs,
        f"tandem counts from nothing, {label}",
        partial(increments.advanced, increments.nothing(), empty, none, window, regions_of),
    )
    day = _window_of(after, since=_shop.AS_OF)
    gone = int(sum((part.at < _micros(_shop.AS_OF - dt.timedelta(days=_shop.DAYS - 1))).sum() for part in before))
    k = np.full(len(cells) + len(set(regions_of)) + 1, K, np.int32)
    for _ in range(rounds):
        timed(runs, f"tandem recount, {label}", partial(_recounted, after, decay, caps, k))
        found = timed(
            runs,
            f"tandem one day, {label}",
            partial(_advanced, counts, window, orders.at, numbers, day, decay, caps, regions_of),
        )
    moved, held = found
    assert held.orders == window.orders - gone + sum(len(part.key) for part in day)
    fresh, _ = increments.advanced(increments.nothing(), empty, none, held, regions_of)
    assert np.array_equal(moved.whole(), fresh.whole()), "kept counts differ from a recount"
    print(f"  {len(fresh.settled):,} pairs of cells equal a count of the new window from nothing")
    return runs, {
        "recount/one_day": _median(runs, f"tandem recount, {label}") / _median(runs, f"tandem one day, {label}")
    }


def _parts(job: Job, as_of: dt.date) -> Iterator[lines.Part]:
    of_day = dataclasses.replace(job, as_of=as_of)
    plan = order_files.plan(of_day, job.rules.learning.window_days)
    return order_files.parts(plan, order_files.sales_files(of_day, plan))


def _window_of(parts: list[lines.Part], since: dt.date) -> list[lines.Part]:
    """The orders of `parts` from `since` on."""
    return [lines.of_orders(part, part.at >= _micros(since)) for part in parts if (part.at >= _micros(since)).any()]


def _micros(day: dt.date) -> int:
    return days.number(day) * lines.DAY


def _recounted(parts: list[lines.Part], decay: lines.Decay, caps: dict[str, int], k: np.ndarray) -> int:
    held, _, _ = lines.joined(parts, decay=decay, **caps)
    return len(pairs.count(held, k=k, top=TOP, damping=0.2))


def _advanced(
    counts: increments.Counts,
    window: increments.Window,
    at: np.ndarray,
    numbers: increments.Numbers,
    day: list[lines.Part],
    decay: lines.Decay,
    caps: dict[str, int],
    regions_of: np.ndarray,
) -> tuple[increments.Counts, increments.Window]:
    orders, people, _, _ = lines.merged(day, decay=decay, **caps)
    leaving = at < _micros(_shop.AS_OF - dt.timedelta(days=_shop.DAYS - 1))
    return increments.advanced(counts, window, leaving, numbers.window(orders, people), regions_of)


def growth(bench: Bench, sizes: list[int]) -> list[Row]:
    """The full job at several sizes, smallest first: seconds, rows, and the most memory a worker took."""
    rows = []
    for baskets in sizes:
        runs: dict[str, list[float]] = {}
        published = bench.shop(baskets, "full", k=K, damping=0.2)
        found, peak = timed(runs, f"tandem full, {baskets:,}", partial(full, bench, published))
        rows.append(Row(f"growth: full, {baskets:,}", runs[f"tandem full, {baskets:,}"]))
        rows.append(Row(f"growth: rows, {baskets:,}", [found], "rows"))
        rows.append(Row(f"growth: worker's peak memory, {baskets:,}", [peak / 1e9], "GB"))
    return rows


def _median(runs: dict[str, list[float]], name: str) -> float:
    return statistics.median(runs[name])


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given:
        given.mkdir(parents=True, exist_ok=True)
        yield given
    else:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baskets", type=int, default=1_000_000)
    parser.add_argument("--joined", type=int, default=JOINED, help="baskets at which Spark's own join is compared")
    parser.add_argument("--growth", type=int, nargs="*", default=[100_000, 1_000_000, 3_000_000], metavar="BASKETS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip", choices=[*RIVALS, "one_day"], action="append", default=[], help="leave a rival out")
    parser.add_argument("--folder", type=Path, help="keep the shops here, for the next run")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="an SVG")
    options = parser.parse_args()
    with _folder(options.folder) as folder:
        bench = Bench(folder)
        skip = set(options.skip)
        runs, ratios = compare(bench, options.baskets, options.rounds, skip)
        if "self_join" not in skip:
            joined, further = compare_join(bench, min(options.joined, options.baskets), options.rounds)
            for name, values in joined.items():
                runs.setdefault(name, []).extend(values)
            ratios |= further
        if "one_day" not in skip:
            kept, further = one_day(bench, options.baskets, options.rounds)
            runs |= kept
            ratios |= further
        rows = [Row("start-up of Spark", [bench.started]), *(Row(name, values) for name, values in runs.items())]
        rows += growth(bench, options.growth)
        bench.spark.stop()
    print(f"\n{_told.table(rows, ratios, FLOORS)}")
    if options.json:
        _told.write_json(options.json, rows, ratios)
    if options.picture:
        _told.draw(options.picture, rows, f"Pairs of {options.baskets:,} baskets ({_told.machine()})")


if __name__ == "__main__":
    main()
