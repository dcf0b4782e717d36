"""What it costs an edge to guard and to be watched: CPU microseconds a request more, each thing by itself.

`make bench-edge_costs`, or `python -m benchmarks.edge_costs --anchors 10000 --rounds 5 --json FILE`.

Edges that differ in one setting are asked in turn for warm bundles, as in benchmarks/edge.py; *hello* is a bare ASGI
app on the same server. *as it comes*: one request of a hundred is logged, all are counted, nothing else. *spans*: sent
by OTLP to a collector on the other core. *key*: each request carries one, which is checked against the hashes of two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from benchmarks import _edge_load, _edge_world, _told
from benchmarks._edge_load import Load
from benchmarks._told import Row
from benchmarks.edge import BUNDLES, redis_up
from deploy import services
from tandem.clients import Client, hash_of, written

KEY = "the-key-of-the-storefront"
PLAIN = "as it comes"
EDGES: dict[str, dict[str, str]] = {
    PLAIN: {},
    "a limit for each address": {"TANDEM_ADDRESS_RATE": "1000000"},
    "a key is needed": {"TANDEM_OPEN_SCOPES": "verify,admin"},
    "spans for 1 %": {"TANDEM_TRACE_SHARE": "0.01"},
    "spans for all": {"TANDEM_TRACE_SHARE": "1"},
    "a log line for all": {"TANDEM_LOG_SHARE": "1"},
    "no log, nothing counted": {"TANDEM_LOG_SHARE": "0", "TANDEM_COUNT_REQUESTS": "false"},
}


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def collector() -> Iterator[str]:
    """The address of one who takes spans and forgets them."""
    server = HTTPServer(("127.0.0.1", 0), _Taking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def with_settings(values: dict[str, str]) -> Iterator[None]:
    """What is started inside has these environment variables."""
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]


@contextmanager
def edges_up(folder: Path, anchors: int) -> Iterator[dict[str, tuple[int, int]]]:
    """Ports and process ids, by name."""
    with ExitStack() as stack:
        url, spans = stack.enter_context(redis_up(folder)), stack.enter_context(collector())
        _edge_world.publish(_edge_world.region_at(url), anchors)
        (folder / "config").mkdir()
        clients = [Client(name="shop", sha256=[hash_of(KEY)], scopes=["read"])]
        (folder / "config" / "clients.toml").write_text("".join(map(written, clients)), encoding="utf-8")
        found = {}
        for name, values in {"hello": {}, **EDGES}.items():
            (port,) = services.free_ports(1)
            traced = {"TANDEM_TRACE_ENDPOINT": spans} if "TANDEM_TRACE_SHARE" in values else {}
            hello = ("benchmarks._edge_rivals", "hello", "--port", str(port))
            with with_settings(values | traced):
                if name == "hello":
                    server = _edge_load.served(*hello, port=port, log=folder / "hello.log")
                else:
                    server = _edge_world.edge(url, folder, port)
                found[name] = port, stack.enter_context(server)
        yield found


def measured(folder: Path, anchors: int, rounds: int, seconds: float) -> list[Row]:
    """All rows, measured in turn; a first round that warms everything does not count."""
    gets = _edge_world.gets(BUNDLES, anchors, 50_000)
    plain = Load(folder, "plain", gets)
    header = f"Authorization: Bearer {KEY}\r\n\r\n".encode()
    keyed = Load(folder, "keyed", [each.removesuffix(b"\r\n") + header for each in gets])
    with edges_up(folder, anchors) as edges:
        found: dict[str, list[float]] = {name: [] for name in edges}
        for number in range(rounds + 1):
            for name, (port, pid) in edges.items():
                before = _edge_load.cpu_seconds(pid)
                told = (keyed if "key" in name else plain).run(port, seconds)
                if told["failed"]:
                    raise RuntimeError(f"{name}: {told['failed']:.0f} of {told['requests']:.0f} requests failed")
                if number:
                    found[name].append(1e6 * (_edge_load.cpu_seconds(pid) - before) / told["requests"])
    return [Row(name, values, "µs CPU") for name, values in found.items()]


def ratios(rows: list[Row]) -> dict[str, float]:
    """Microseconds more than the edge as it comes: medians over the rounds of differences within each round."""
    of = {row.name: row.values for row in rows}
    return {
        f"{name}: more": statistics.median(a - b for a, b in zip(of[name], of[PLAIN], strict=True))
        for name in EDGES
        if name != PLAIN
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of load for each row and round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        rows = measured(Path(made), options.anchors, options.rounds, options.seconds)
    told = ratios(rows)
    print(f"load by {_edge_load.generator()}, {_edge_load.CONNECTIONS} connections, {options.anchors:,} anchors")
    print(_told.table(rows, told, {}))
    if options.json:
        _told.write_json(options.json, rows, told)


if __name__ == "__main__":
    main()
