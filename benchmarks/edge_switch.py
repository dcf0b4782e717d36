"""A new release while an edge serves 2,000 requests a second: errors, and what it does to the time of answers.

`make bench-edge_switch`, or `python -m benchmarks.edge_switch --anchors 10000 --rounds 5 --json FILE`.

The same steady load is run twice in each round: with nothing else going on, and while the pointer moves to the next of
three sealed releases every two seconds, each of which the edge then reads anew from Redis and checks. Counted are
answers other than 200, and the 99th percentile of both. That no answer mixes two releases is a test
(tests/edge_service/test_bad_links.py).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _edge_world, _told
from benchmarks._edge_load import Load
from benchmarks._told import Row
from benchmarks.edge import BUNDLES, redis_up
from deploy import services
from edge_service.region_store import RegionStore

CEILINGS = {"p99_switching/p99": 3.0, "failed": 0.0}
ASKED_A_SECOND = 2_000.0
CONNECTIONS = 16
EVERY_SECONDS = 2.0
RELEASES = (_edge_world.RELEASE, "20260106-0123456789ab", "20260107-0123456789ab")
"""An edge holds two; the third is read."""


@contextmanager
def switching(url: str) -> Iterator[list[str]]:
    """While the body runs, the pointer goes round; gives the releases that were pointed to."""
    over, pointed = threading.Event(), list[str]()

    def go_on() -> None:
        with RegionStore(_edge_world.region_at(url)) as store:
            while not over.wait(EVERY_SECONDS):
                pointed.append(RELEASES[len(pointed) % len(RELEASES)])
                store.switch(pointed[-1], None)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield pointed
    finally:
        over.set()
        thread.join()


def measured(folder: Path, anchors: int, rounds: int, seconds: float) -> tuple[list[Row], dict[str, float]]:
    with redis_up(folder) as url:
        for release in reversed(RELEASES):
            _edge_world.publish(_edge_world.region_at(url), anchors, release)
        (port,) = services.free_ports(1)
        load = Load(folder, "get", _edge_world.gets(BUNDLES, anchors, 50_000))
        quiet, busy, switches = [], [], 0
        with _edge_world.edge(url, folder, port):
            load.run(port, 3.0)  # warms everything
            for _ in range(rounds):
                quiet.append(load.run(port, seconds, CONNECTIONS, ASKED_A_SECOND))
                with switching(url) as pointed:
                    busy.append(load.run(port, seconds, CONNECTIONS, ASKED_A_SECOND))
                switches += len(pointed)
    rows = [
        Row("asked a second", [told["requests"] / told["seconds"] for told in busy], ""),
        Row("switches", [float(switches)], ""),
        Row("failed", [told["failed"] for told in busy], ""),
        Row("quiet, median", [told["p50"] for told in quiet], "ms"),
        Row("quiet, 99th percentile", [told["p99"] for told in quiet], "ms"),
        Row("switching, median", [told["p50"] for told in busy], "ms"),
        Row("switching, 99th percentile", [told["p99"] for told in busy], "ms"),
    ]
    ratios = {
        "p99_switching/p99": statistics.median(b["p99"] / q["p99"] for b, q in zip(busy, quiet, strict=True)),
        "failed": sum(told["failed"] for told in busy),
    }
    return rows, ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        rows, ratios = measured(Path(made), options.anchors, options.rounds, options.seconds)
    print(f"load by benchmarks/_edge_client.py, {CONNECTIONS} connections, {options.anchors:,} anchors")
    print(_told.table(rows, ratios, {}, CEILINGS))
    if options.json:
        _told.write_json(options.json, rows, ratios)


if __name__ == "__main__":
    main()
