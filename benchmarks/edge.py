"""The edge: CPU microseconds a request, beside an app that only says hello and two that ask Redis.

`make bench-edge`, or `python -m benchmarks.edge --anchors 10000 --rounds 5 --json FILE`.

All run on the same server (uvicorn, one worker, one core) and are asked in turn by a load generator on the other core.
What is told: user and system time of the server's processes, from /proc/PID/stat, over the requests that it answered.
Anchors are asked for with Zipf popularity. *hello*: a bare ASGI app, which this server asks by uvicorn's own way, while
it asks Tandem for hot answers as it reads the question (docs/decisions/0016); *hello on granian*: the same app on that
server; *bodies*: hello with a text as long as Tandem's for each address. *reference A*: FastAPI and redis-py, GET the
list, MGET price and stock of its 18 products, a dict; redis-py as it comes, and with hiredis. *reference B*: as A as it
comes, with a response model and orjson.
Each load runs twice and counts once: after changes of all products every answer is worked out anew, which is not warm.
*warm*: GET bundles with six signed quotes in the answer. *offers*: POST offers, a cart of 5 with 20 candidates or more,
without quotes, and with six.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from benchmarks import _edge_feed, _edge_load, _edge_world, _told
from benchmarks._edge_load import Load
from benchmarks._told import Row
from deploy import services
from tandem.settings import Settings

CEILINGS = {"warm/hello": 1.3, "warm_under_deltas/hello": 2.0, "offers/hello": 4.0, "quotes/hello": 2.0}
FLOORS = {"a/warm": 25.0, "b/warm": 16.0}
BUNDLES = "/v1/north/bundles/{sku}"
OFFERS = "/v1/north/offers"
DELTAS_A_SECOND = 10_000
REQUESTS = 100_000
"""Different requests (with repeated anchors) in the file that the load generator goes through."""


class Bench:
    """All servers up, each with the load that it is asked with."""

    def __init__(self, folder: Path, anchors: int, seconds: float) -> None:
        self._folder, self._anchors, self._seconds = folder, anchors, seconds
        self._stack = ExitStack()
        self.url = ""
        self._servers: dict[str, tuple[int, int]] = {}
        self._loads: dict[str, Load] = {}

    @contextmanager
    def up(self) -> Iterator[Bench]:
        with self._stack:
            self.url = self._stack.enter_context(redis_up(self._folder))
            region = _edge_world.region_at(self.url)
            _edge_world.publish(region, self._anchors)
            with redis.Redis.from_url(self.url) as client:
                _edge_world.publish_plain(client, self._anchors)
            anchors = self._anchors
            self._loads = {
                "get": Load(self._folder, "get", _edge_world.gets(BUNDLES, anchors, REQUESTS)),
                "plain": Load(self._folder, "plain", _edge_world.carts(OFFERS, anchors, 20_000, quotes=False)),
                "signed": Load(self._folder, "signed", _edge_world.carts(OFFERS, anchors, 20_000)),
            }
            for name in ("hello", "hello-granian", "bodies", "a", "a-hiredis", "b", "tandem"):
                self._start(name)
            yield self

    def _start(self, name: str) -> None:
        (port,) = services.free_ports(1)
        if name == "tandem":
            server = _edge_world.edge(self.url, self._folder, port)
        else:
            command = ("benchmarks._edge_rivals", name, "--port", str(port), "--redis", self.url)
            server = _edge_load.served(*command, port=port, log=self._folder / f"{name}.log", path="/docs")
        self._servers[name] = port, self._stack.enter_context(server)

    def cpu(self, name: str, load: str) -> float:
        """CPU microseconds a request, once the same load has run before. Raises RuntimeError where a request failed."""
        port, pid = self._servers[name]
        self._loads[load].run(port, self._seconds)
        before = _edge_load.cpu_seconds(pid)
        told = self._loads[load].run(port, self._seconds)
        if told["failed"]:
            raise RuntimeError(f"{name}, {load}: {told['failed']:.0f} of {told['requests']:.0f} requests failed")
        return 1e6 * (_edge_load.cpu_seconds(pid) - before) / told["requests"]

    def under_deltas(self) -> float:
        """As `cpu` of warm answers, while all products change."""
        with _edge_feed.running(self.url, self._anchors, DELTAS_A_SECOND):
            return self.cpu("tandem", "get")


@contextmanager
def redis_up(folder: Path) -> Iterator[str]:
    """A Redis on the core of the load; gives its address."""
    (port,) = services.free_ports(1)
    url = f"redis://127.0.0.1:{port}/0"
    server = services.redis_server(Settings(home=folder), "bench", url)
    with _edge_load.here_on(_edge_load.LOAD_CORE):
        server.start()
    try:
        yield url
    finally:
        server.stop()


def measured(bench: Bench, rounds: int) -> list[Row]:
    """All rows, measured in turn; a first round that warms everything does not count."""
    ways: dict[str, Callable[[], float]] = {
        "hello": lambda: bench.cpu("hello", "get"),
        "hello on granian": lambda: bench.cpu("hello-granian", "get"),
        "hello, bodies of 4.8 kB": lambda: bench.cpu("bodies", "get"),
        "tandem, warm": lambda: bench.cpu("tandem", "get"),
        "tandem, warm, under deltas": bench.under_deltas,
        "tandem, offers": lambda: bench.cpu("tandem", "plain"),
        "tandem, offers with quotes": lambda: bench.cpu("tandem", "signed"),
        "reference A": lambda: bench.cpu("a", "get"),
        "reference A with hiredis": lambda: bench.cpu("a-hiredis", "get"),
        "reference B": lambda: bench.cpu("b", "get"),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            value = way()
            if number:
                found[name].append(value)
    return [Row(name, values, "µs CPU") for name, values in found.items()]


def ratios(rows: list[Row]) -> dict[str, float]:
    """Medians over the rounds of ratios within each round: what slows the machine for a while cancels out."""
    of = {row.name: row.values for row in rows}
    quotes = [a - b for a, b in zip(of["tandem, offers with quotes"], of["tandem, offers"], strict=True)]
    pairs = {
        "warm/hello": (of["tandem, warm"], of["hello"]),
        "hello_granian/hello": (of["hello on granian"], of["hello"]),
        "warm/bodies": (of["tandem, warm"], of["hello, bodies of 4.8 kB"]),
        "a/warm": (of["reference A"], of["tandem, warm"]),
        "b/warm": (of["reference B"], of["tandem, warm"]),
        "warm_under_deltas/hello": (of["tandem, warm, under deltas"], of["hello"]),
        "a_hiredis/warm": (of["reference A with hiredis"], of["tandem, warm"]),
        "offers/hello": (of["tandem, offers"], of["hello"]),
        "quotes/hello": (quotes, of["hello"]),
    }
    return {name: statistics.median(a / b for a, b in zip(*both, strict=True)) for name, both in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each row and round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, Bench(Path(made), options.anchors, options.seconds).up() as bench:
        rows = measured(bench, options.rounds)
    told = ratios(rows)
    print(f"load by {_edge_load.generator()}, {_edge_load.CONNECTIONS} connections, {options.anchors:,} anchors")
    print(_told.table(rows, told, FLOORS, CEILINGS))
    if options.json:
        _told.write_json(options.json, rows, told)


if __name__ == "__main__":
    main()
