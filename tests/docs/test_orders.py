"""docs/orders.md holds: its requests are answered as they stand, and what it names exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orders.basket import MENDS
from tandem.cli import main
from tests.orders.conftest import DELTA_KEY, ORDER_KEY, dsn, postgres, quote, rows, stocked
from tests.orders.test_faults import Service, service

__all__ = ["dsn", "postgres", "service"]
pytestmark = pytest.mark.servers

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "orders.md").read_text(encoding="utf-8")
COFFEE, BANANAS = "1029743", "1082185"


@pytest.fixture
def edge() -> Iterator[str]:
    """The address of what answers as an edge does, with one bundle and its quote."""
    token = quote((COFFEE, 1, 854), (BANANAS, 2, 522))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"bundles": [{"quote": {"token": token}}]}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("postgres", ["wheel"], indirect=True)
def test_the_requests_are_answered_as_they_stand(service: Service, edge: str, dsn: str, tmp_path: Path) -> None:
    stocked(dsn, **{COFFEE: 5, BANANAS: 5})
    (tmp_path / ".tandem" / "secrets").mkdir(parents=True)
    for name, key in (("orders", ORDER_KEY), ("deltas", DELTA_KEY)):
        (tmp_path / ".tandem" / "secrets" / name).write_text(key)
    buy, give_back, receive = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

    def run(script: str, **variables: str) -> Any:
        text = script.replace("127.0.0.1:8080", edge).replace("127.0.0.1:8081", f"127.0.0.1:{service.port}")
        environment = os.environ | variables
        done = subprocess.run(
            ["bash", "-eu", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    order = run(buy, SKU=COFFEE)
    assert order["total"] == 1376
    assert run(give_back, ORDER=order["order_id"])["refunded"] == 854
    run(receive)
    assert rows(dsn, "SELECT sku, on_hand FROM stock ORDER BY sku") == [(COFFEE, 55), (BANANAS, 12)]


def test_every_problem_that_the_page_explains_is_one_and_none_is_left_out() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "orders").glob("*.py")))
    given = set(re.findall(r'kind="([a-z-]+)"', code)) | {f"quote-{fault.replace('_', '-')}" for fault in MENDS}
    table = PAGE[PAGE.index("| problem") : PAGE.index("`POST /v1/{region}/reservations`")]
    named = {name for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"[a-z-]+", row)}
    assert named | {"returned-already"} == given | {"unavailable"}
    assert "`returned-already`" in PAGE


def test_commands_tests_and_metrics_that_the_page_names_exist() -> None:
    groups = {name: getattr(command, "commands", {}) for name, command in main.commands.items()}
    for first, second in re.findall(r"tandem (orders|relay)(?: ([a-z]+)\b)?", PAGE):
        assert first in groups
        assert not second or first != "orders" or second in groups[first], second
    assert [name for name in set(re.findall(r"tests/[\w/.]+", PAGE)) if not (ROOT / name).exists()] == []
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "orders").glob("*.py"))
    named = {name.removesuffix("_total") for name in re.findall(r"`(tandem_[a-z_]+)", PAGE)}
    assert [name for name in named if f'"{name}"' not in code] == []
