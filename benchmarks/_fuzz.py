"""Atheris, led by what the code does, looks for bytes that break one of the parsers.

`python -m benchmarks._fuzz NAME RUNS`; ends with status 0 where none was found.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edge_service", "tandem", "benchmarks._parsers"]):
    from benchmarks import _parsers

BOUNDS = ("-max_len=4096", "-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1", "-seed=7")


def main() -> None:
    name, runs = sys.argv[1:]
    with tempfile.TemporaryDirectory() as corpus:
        for number, each in enumerate(_parsers.SEEDS[name]):
            (Path(corpus) / str(number)).write_bytes(each)
        atheris.Setup([sys.argv[0], f"-runs={runs}", *BOUNDS, corpus], lambda data: _parsers.fed(name, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
