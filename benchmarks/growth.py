"""A whole publish under Spark, of ten and a hundred times as many anchors: its time, and the memory of each process.

`make bench-growth`, or `python -m benchmarks.growth --anchors 30000 300000 --json FILE`.

Each size is a lake, servers and a publisher of its own. The publisher has a Spark session with two slots ready, and
then does what `tandem publish` does: rows from the lake, lists and bodies into Redis, files in gzip and brotli into
the object store, all of it read back, sealed and switched; stock and prices too. An anchor has four places. Memory is
the most that the driver, and that a worker which tasks run in, has had.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from benchmarks import _releases, _told
from benchmarks._serving import ROOT, environment
from benchmarks._told import Row, most_megabytes
from benchmarks.publish import GROWTH, servers
from tandem import settings as settings_file

DAY = 1
SLOTS = 2


class Grown(msgspec.Struct):
    """What a publish took."""

    seconds: float
    driver_megabytes: float
    worker_megabytes: float


def run(anchors: int) -> Grown:
    """Publish a release of so many anchors in a process of its own."""
    with servers() as (made, region, _):
        settings = _releases.made(made, region.redis_url, region.object_store, (DAY,), anchors)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.growth", "--publish"],
            cwd=ROOT,
            env=environment(settings) | {"TANDEM_SHUFFLE_PARTITIONS": str(SLOTS)},
            check=True,
            stdout=subprocess.PIPE,
        )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Grown)


def publish() -> Grown:
    """Publish what lies in the lake of the environment's settings."""
    from spark_jobs import publish as publishing
    from spark_jobs import session

    settings = settings_file.from_environment()
    spark = session.create(settings, "growth")
    try:
        spark.range(0, SLOTS, 1, SLOTS).mapInArrow(lambda rows: rows, "id long").collect()
        start = time.perf_counter()
        publishing.publish(spark, settings, _releases.day(DAY), _releases.REGION, _aside)
        seconds = time.perf_counter() - start
        workers = [most_megabytes(process) for process in _workers()]
    finally:
        spark.stop()
    return Grown(seconds, most_megabytes("self"), max(workers))


def _aside(said: str) -> None:
    print(said, file=sys.stderr)


def _workers() -> list[str]:
    """The Python processes of this process's JVM, which stay for the next tasks."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[status.parent.name] = status.read_text().rpartition(")")[2].split()[1]
    own, found = {str(os.getpid())}, [""]
    while found:
        found = [child for child, parent in parents.items() if parent in own and child not in own]
        own |= set(found)
    commands = {each: Path("/proc", each, "cmdline").read_bytes() for each in own}
    return [each for each, command in commands.items() if b"pyspark.daemon" in command]


def measured(sizes: list[int]) -> tuple[list[Row], dict[str, float]]:
    """Rows of each size, and what ten times as many cost."""
    rows, ratios = [], {}
    before: tuple[int, Grown] | None = None
    for anchors in sizes:
        grown = run(anchors)
        rows += [
            Row(f"publish under Spark, {anchors:,} anchors", [grown.seconds]),
            Row(f"its driver, {anchors:,} anchors", [grown.driver_megabytes], "MB"),
            Row(f"its largest worker, {anchors:,} anchors", [grown.worker_megabytes], "MB"),
        ]
        if before:
            name, smaller = f"{before[0]}_to_{anchors}", before[1]
            ratios[f"growth/{name}"] = grown.seconds / smaller.seconds
            ratios[f"driver_memory/{name}"] = grown.driver_megabytes / smaller.driver_megabytes
            ratios[f"worker_memory/{name}"] = grown.worker_megabytes / smaller.worker_megabytes
        before = anchors, grown
    return rows, ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, nargs="*", default=[30_000, 300_000, 3_000_000])
    parser.add_argument("--publish", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.publish:
        print(msgspec.json.encode(publish()).decode())
        return
    rows, ratios = measured(options.anchors)
    ceilings = {name: GROWTH for name in ratios if name.startswith("growth/")}
    print(_told.table(rows, ratios, {}, ceilings))
    if options.json:
        _told.write_json(options.json, rows, ratios)


if __name__ == "__main__":
    main()
