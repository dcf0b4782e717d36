"""Hostile input: a hundred thousand questions made from the OpenAPI document, and a fuzzer over every parser.

`make bench-edge_fuzz`, or `python -m benchmarks.edge_fuzz --cases 100000 --runs 1000000 --json FILE`.

*cases*: questions that the document allows and forbids (schemathesis), sent to an edge over HTTP; each answer is held
to the document: no 5xx, no status, shape or header that it does not name, none slower than 2 seconds. *runs*: inputs
for each parser, led by coverage (atheris); a parser may refuse, and must do nothing else. It ends with an error at the
first that fails. benchmarks/_parsers.py names the parsers.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks import _edge_load, _edge_world, _parsers, _told
from benchmarks._schema_cases import Cases, of_edge
from benchmarks._told import Row
from benchmarks.edge import redis_up
from deploy import services

CEILINGS = {"memory_growth_mb": 50.0}


def cases(folder: Path, number: int, seed: int) -> tuple[list[Row], float]:
    """Rows, and the megabytes that the edge grew by after the first tenth of the cases."""
    with redis_up(folder) as url:
        _edge_world.publish(_edge_world.region_at(url), 1_000)
        (port,) = services.free_ports(1)
        with _edge_world.edge(url, folder, port) as pid:
            url = f"http://127.0.0.1:{port}"
            asking = Cases(url, _edge_world.DELTA_KEY, of_edge(url, _edge_world.sku(1)))
            asking.run(number // 10, seed)
            before, started = _edge_load.resident_mb(pid), time.perf_counter()
            asking.run(number, seed + 1_000)
            seconds, after = time.perf_counter() - started, _edge_load.resident_mb(pid)
    for status in sorted({status for _, status in asking.statuses}):
        print(f"{status}: {sum(n for (_, each), n in asking.statuses.items() if each == status):,}")
    total = sum(asking.statuses.values())
    rows = [
        Row("cases", [total], ""),
        Row("cases: seconds", [seconds]),
        Row("the edge's memory", [before, after], "MB"),
    ]
    return rows, after - before


def fuzzed(name: str, runs: int) -> list[Row]:
    """Raises CalledProcessError where an input broke the parser; its own output says which."""
    command = [sys.executable, "-m", "benchmarks._fuzz", name, str(runs)]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as told:
        done = subprocess.run(command, stderr=told, stdout=told, check=False)
        told.seek(0)
        text = told.read()
    if done.returncode:
        print(text[-5_000:])
        raise subprocess.CalledProcessError(done.returncode, command)
    seconds = time.perf_counter() - started
    (executed,), (peak,) = (
        re.findall(rf"stat::{what}: +(\d+)", text) for what in ("number_of_executed_units", "peak_rss_mb")
    )
    return [
        Row(f"{name}: inputs", [float(executed)], ""),
        Row(f"{name}: seconds", [seconds]),
        Row(f"{name}: most memory", [float(peak)], "MB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    if options.runs and find_spec("atheris") is None:
        print("no parser is fuzzed: atheris is not installed (pip install atheris; Linux on x86-64, not in the lock)")
    elif options.runs:
        for name in _parsers.PARSERS:
            rows += fuzzed(name, options.runs)
    if options.cases:
        with tempfile.TemporaryDirectory() as made:
            asked, ratios["memory_growth_mb"] = cases(Path(made), options.cases, options.seed)
            rows += asked
    print(_told.table(rows, ratios, {}, CEILINGS))
    if options.json:
        _told.write_json(options.json, rows, ratios)


if __name__ == "__main__":
    main()
