"""A release on trial: promoted where the edge does well, rolled back by itself where it does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest

from edge_service.observe import Metrics
from edge_service.region_store import RegionStore
from spark_jobs import canary, release_switch
from tandem import regions
from tandem.errors import TandemError
from tandem.gates import Canary
from tandem.release import WrongTransition
from tandem.settings import Settings
from tests.spark_jobs.test_release_switch import DAY, Sealed, promote, sealed, seen, shop
from warehouse import ledger

__all__ = ["sealed", "shop"]
pytestmark = pytest.mark.servers


class Edge:
    """Stands where an edge's /metrics is: the edge's own counters, moved by every reading as a test says."""

    def __init__(self, region: regions.Region) -> None:
        self.metrics, self.region = Metrics({}), region
        self.empty_after, self.failing, self.readings = False, False, 0
        edge = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = edge.text()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def text(self) -> bytes:
        with RegionStore(self.region) as store:
            release = store.current() or ""
        bad = release == "r2"
        for number in range(50):
            failed = bad and self.failing and number < 5
            empty = "true" if bad and self.empty_after and number < 25 else "false"
            self.metrics.requests.labels("/v1/{region}/bundles/{sku}", "GET", 500 if failed else 200).inc()
            self.metrics.seconds.labels("/v1/{region}/bundles/{sku}").observe(0.002)
            self.metrics.answers.labels("north", "region", empty, "false").inc()
        serves = f'tandem_release{{region="north",release="{release}"}} 1.0\n'
        return self.metrics.text() + serves.encode()


@pytest.fixture
def edge(shop: Settings) -> Iterator[Edge]:
    started = Edge(regions.load(shop.config_folder).get("north"))
    yield started
    started.server.shutdown()
    started.server.server_close()


@pytest.fixture
def watched(shop: Settings, sealed: Sealed, edge: Edge) -> Settings:
    """r1 is current in north, r2 waits in both regions."""
    sealed("r1", "r2")
    sealed("r2", region="south")
    promote(shop, "r1")
    return msgspec.structs.replace(shop, canary_seconds=0.1, edge_port=edge.server.server_port)


def test_what_does_well_is_promoted_where_it_was_tried_and_waits_elsewhere(watched: Settings) -> None:
    assert canary.run(watched, DAY, print) == "r2"
    assert seen(watched) == ("r2", "r1", "r2", {"r1": "backup", "r2": "current"})
    assert ledger.state(watched, "south", "r2") == "sealed"
    (why,) = [row["reason"] for row in ledger.history(watched, "r2") if row["state"] == "current"]
    assert why.startswith("healthy on trial: 50 requests in 0.1 s, 0 failed, 50 answers, 0 empty")
    assert canary.run(watched, DAY, print) == "r2"


@pytest.mark.parametrize(
    ("fault", "said"),
    [("failing", "10.0% of the requests failed"), ("empty_after", "50.0% of the answers are empty, 0.0% before")],
)
def test_what_does_badly_is_rolled_back_by_itself_and_reaches_no_region(
    watched: Settings, edge: Edge, fault: str, said: str
) -> None:
    setattr(edge, fault, True)
    with pytest.raises(canary.Unhealthy, match=said):
        canary.run(watched, DAY, print)
    assert seen(watched) == ("r1", None, "r1", {"r1": "current", "r2": "quarantined"})
    assert ledger.state(watched, "south", "r2") == "quarantined"
    with pytest.raises(WrongTransition, match="quarantined"):
        release_switch.promote_named(watched, "south", "r2", "anyway", print)


def test_what_a_person_holds_is_promoted_by_nobody_until_they_let_it_go_on(watched: Settings) -> None:
    release_switch.in_each(watched, [], "r2", "call from support", print, release_switch.hold)
    with pytest.raises(TandemError, match=r"r2 is held by .*: call from support; tandem go-on"):
        canary.run(watched, DAY, print)
    with pytest.raises(WrongTransition, match="is held and cannot become current"):
        promote(watched, "r2")
    release_switch.in_each(watched, ["north"], "r2", "all is well", print, release_switch.go_on)
    assert seen(watched)[0] == "r2"
    assert ledger.state(watched, "south", "r2") == "held"


def test_without_an_edge_a_first_trial_goes_on_unless_traffic_is_asked_for(watched: Settings, edge: Edge) -> None:
    alone = msgspec.structs.replace(watched, edge_port=1)
    (watched.config_folder / "gates.toml").write_text("[canary]\nneeds_traffic = true\n")
    with pytest.raises(TandemError, match=r"is not known .*no edge answers there.*tandem go-on"):
        canary.run(alone, DAY, print)
    assert seen(alone)[3]["r2"] == "canary"
    (watched.config_folder / "gates.toml").write_text("")
    assert canary.run(alone, DAY, print) == "r2"
    assert seen(alone)[3]["r2"] == "current"


def test_percentiles_and_shares_are_of_the_window_alone() -> None:
    before = canary.Counted("r1", 1000, 100, 0, 1000, 0, {0.01: 1000.0, 0.25: 1000.0, 1.0: 1000.0})
    now = canary.Counted("r2", 1100, 115, 20, 1100, 2, {0.01: 1050.0, 0.25: 1098.0, 1.0: 1100.0})
    window = now.since(before)
    assert (window.answers, window.errors, window.p99_seconds) == (100, 2, 1.0)
    found = canary.judged(Canary(), before, window)
    assert [line.split(",")[0] for line in found] == [
        "2.0% of the requests failed",
        "99 % within 1 s",
        "20.0% of the answers are stale",
    ]
    assert canary.judged(Canary(min_answers=101), before, window) == []
