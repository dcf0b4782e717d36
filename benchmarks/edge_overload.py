"""An edge that is asked ten times as much as it can answer: what goes on, what the rest is told, memory, recovery.

`make bench-edge_overload`, or `python -m benchmarks.edge_overload --rounds 3 --json FILE`. Needs wrk and nginx.

The edge has one core; load and gateway (nginx, deploy/images/gateway.conf) share the other. Asked for are POST offers
with a cart of 10 and 50 of its 80 bundles with signed quotes: the dearest question, so that the other core can ask ten
times as much. *peak*: answers a second over 16, 32 or 64 connections, whichever gives the most. *ten times*: 640
connections, each asking at such a pace that together they ask ten times the peak, whatever comes back. *goodput*:
answers with status 200 a second. *recovery*: from the end of the load until 25 requests in a row, one at a time, are
answered within ten times the median of a quiet edge.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _edge_load, _edge_world, _gateway, _told
from benchmarks._edge_load import Load
from benchmarks._told import Row
from benchmarks.edge import OFFERS, redis_up
from deploy import services
from edge_service.questions import MAX_LIMIT

FLOORS = {"goodput/peak": 0.95, "asked/peak": 10.0}
CEILINGS = {"recovery_seconds": 5.0, "memory_growth_mb": 100.0}
STEADY = (16, 32, 64)
"""Connections of the loads that the peak is looked for with."""
CROWD = 640
PACE = 15.0
"""Times the peak that a crowd would ask if it were answered in no time."""
IN_A_ROW = 25


class Told(dict[str, float]):
    """What a load said, with its goodput."""

    @property
    def good(self) -> float:
        return (self["requests"] - self["failed"]) / self["seconds"]

    @property
    def asked(self) -> float:
        return self["requests"] / self["seconds"]


class Overload:
    """An edge, the gateway in front of it, and the load."""

    def __init__(self, port: int, pid: int, gateway: int, load: Load, seconds: float) -> None:
        self._port, self._pid, self._gateway, self._load, self._seconds = port, pid, gateway, load, seconds

    def run(self, connections: int, a_second: float = 0.0, *, direct: bool = False) -> Told:
        """`a_second`: of all connections together; 0: as fast as they can."""
        port = self._port if direct else self._gateway
        pause = 1_000 * connections / a_second if a_second else 0.0
        return Told(self._load.run(port, self._seconds, connections, pause_ms=pause))

    def memory(self) -> float:
        return _edge_load.resident_mb(self._pid)

    def quiet(self) -> float:
        """Median seconds of a request when there is no other."""
        return statistics.median(self._ask() for _ in range(50))

    def recovery(self, quiet: float) -> float:
        """Seconds until IN_A_ROW requests are answered as `quiet` says."""
        started, row = time.perf_counter(), 0
        since = started
        while row < IN_A_ROW:
            if row == 0:
                since = time.perf_counter()
            row = row + 1 if self._ask() < 10 * quiet else 0
        return since - started

    def _ask(self) -> float:
        started = time.perf_counter()
        if _edge_load.status(self._gateway, "/v1/north/bundles/1000001") != 200:
            return float("inf")
        return time.perf_counter() - started


@contextmanager
def edge_behind_gateway(folder: Path, anchors: int, seconds: float) -> Iterator[Overload]:
    with redis_up(folder) as url:
        _edge_world.publish(_edge_world.region_at(url), anchors)
        load = Load(folder, "signed", _edge_world.carts(OFFERS, anchors, 5_000, products=10, limit=MAX_LIMIT))
        (port,) = services.free_ports(1)
        with (
            _edge_world.edge(url, folder, port) as pid,
            _gateway.up(folder / "gateway", port, limits=False, start_as=_edge_load.on_load_core) as gateway,
        ):
            yield Overload(port, pid, gateway, load, seconds)


def measured(overload: Overload, rounds: int) -> tuple[list[Row], dict[str, float]]:
    """Rows and ratios; each round looks for the peak anew."""
    overload.run(STEADY[0])  # warms everything, and does not count
    quiet, before = overload.quiet(), overload.memory()
    best = max(STEADY, key=lambda connections: overload.run(connections).good)
    peaks, crowds, alone, recoveries = [], [], [], []
    for _ in range(rounds):
        peaks.append(overload.run(best))
        crowds.append(overload.run(CROWD, PACE * peaks[-1].good))
        recoveries.append(overload.recovery(quiet))
        alone.append(overload.run(CROWD, direct=True))
    rows = [
        Row("peak goodput", [told.good for told in peaks], "/s"),
        Row("ten times: asked", [told.asked for told in crowds], "/s"),
        Row("ten times: goodput", [told.good for told in crowds], "/s"),
        Row("ten times: all answers, median", [told["p50"] for told in crowds], "ms"),
        Row("ten times: all answers, 99th percentile", [told["p99"] for told in crowds], "ms"),
        Row("recovery", recoveries),
        Row("without the gateway, 640 connections: goodput", [told.good for told in alone], "/s"),
        Row("without the gateway: 99th percentile", [told["p99"] for told in alone], "ms"),
        Row("the edge's memory before", [before], "MB"),
        Row("the edge's memory after", [overload.memory()], "MB"),
    ]
    peak = statistics.median(told.good for told in peaks)
    ratios = {
        "goodput/peak": statistics.median(told.good for told in crowds) / peak,
        "asked/peak": statistics.median(told.asked for told in crowds) / peak,
        "recovery_seconds": max(recoveries),
        "memory_growth_mb": overload.memory() - before,
        "without_gateway/peak": statistics.median(told.good for told in alone) / peak,
    }
    return rows, ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if missing := [each for each in ("wrk", "nginx") if shutil.which(each) is None]:
        print(f"nothing is measured: {' and '.join(missing)} must be installed")
        return
    with (
        tempfile.TemporaryDirectory() as made,
        edge_behind_gateway(Path(made), options.anchors, options.seconds) as overload,
    ):
        rows, ratios = measured(overload, options.rounds)
    print(f"load by {_edge_load.generator()}, {options.anchors:,} anchors")
    print(_told.table(rows, ratios, FLOORS, CEILINGS))
    if options.json:
        _told.write_json(options.json, rows, ratios)


if __name__ == "__main__":
    main()
