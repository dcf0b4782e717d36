"""A release on trial: promoted where the edge does well, rolled back by itself where it does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pyarrow as pa
import pytest

from edge_service.log import logger
from edge_service.observe import Metrics
from edge_service.region_store import RegionStore
from spark_jobs import canary, edge_health, release_switch
from spark_jobs.edge_health import Counted, Reading, Window
from tandem import regions
from tandem.errors import TandemError
from tandem.gates import Canary
from tandem.release import WrongTransition
from tandem.settings import Settings
from tests.spark_jobs.test_release_switch import DAY, Sealed, promote, sealed, seen, shop
from warehouse import lake, ledger
from warehouse.tables import EXPOSURES, OUTCOMES

__all__ = ["sealed", "shop"]
pytestmark = pytest.mark.servers


class Edge:
    """Stands where an edge's /metrics is: the edge's own counters, moved by every reading as a test says."""

    def __init__(self, region: regions.Region) -> None:
        self.metrics, self.region = Metrics({}, {}, logger(), Settings(log_share=0)), region
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
            self.metrics.told({"headers": []}, "/v1/{region}/bundles/{sku}", "GET", 500 if failed else 200, 0.002)
            self.metrics.answers["north", "region", empty, "false"] += 1
        serves = f'tandem_release{{region="north",release="{release}"}} 1.0\n'
        return (self.metrics.text() + serves).encode()


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
    canary.run(watched, "r2", [], print)
    assert seen(watched) == ("r2", "r1", "r2", {"r1": "backup", "r2": "current"})
    assert ledger.state(watched, "south", "r2") == "sealed"
    (why,) = [row["reason"] for row in ledger.history(watched, "r2") if row["state"] == "current"]
    assert why.startswith("healthy on trial: 50 requests, 0 failed, 50 answers, 0 empty, 0 stale, 99 % within 0.002 s")
    canary.run(watched, "r2", [], print)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("failing", "10.0% of the requests failed"), ("empty_after", "50.0% of the answers are empty, 0.0% before")],
)
def test_what_does_badly_is_rolled_back_by_itself_and_reaches_no_region(
    watched: Settings, edge: Edge, fault: str, said: str
) -> None:
    setattr(edge, fault, True)
    with pytest.raises(canary.Unhealthy, match=said):
        canary.run(watched, "r2", [], print)
    assert seen(watched) == ("r1", None, "r1", {"r1": "current", "r2": "quarantined"})
    assert ledger.state(watched, "south", "r2") == "quarantined"
    with pytest.raises(WrongTransition, match="quarantined"):
        release_switch.promote_named(watched, "south", "r2", "anyway", print)


def test_what_a_person_holds_is_promoted_by_nobody_until_they_let_it_go_on(watched: Settings) -> None:
    release_switch.in_each(watched, [], "r2", "call from support", print, release_switch.hold)
    with pytest.raises(TandemError, match=r"r2 is held in north by .*: call from support; tandem go-on"):
        canary.run(watched, "r2", [], print)
    with pytest.raises(WrongTransition, match="is held and cannot become current"):
        promote(watched, "r2")
    release_switch.in_each(watched, ["north"], "r2", "all is well", print, release_switch.go_on)
    assert seen(watched)[0] == "r2"
    assert ledger.state(watched, "south", "r2") == "held"


def test_without_an_edge_a_first_trial_goes_on_unless_traffic_is_asked_for(watched: Settings, edge: Edge) -> None:
    alone = msgspec.structs.replace(watched, edge_port=1)
    (watched.config_folder / "gates.toml").write_text("[canary]\nneeds_traffic = true\n")
    with pytest.raises(TandemError, match=r"is not known .*no edge answers there.*tandem go-on"):
        canary.run(alone, "r2", [], print)
    assert seen(alone)[3]["r2"] == "canary"
    (watched.config_folder / "gates.toml").write_text("")
    canary.run(alone, "r2", [], print)
    assert seen(alone)[3]["r2"] == "current"


def test_a_bad_trial_ends_as_soon_as_enough_speaks_against_it(watched: Settings, edge: Edge) -> None:
    edge.failing = True
    with pytest.raises(canary.Unhealthy, match=r"10\.0% of the requests failed"):
        canary.run(msgspec.structs.replace(watched, canary_seconds=300), "r2", [], print)


@pytest.mark.parametrize(("bought", "good"), [(10, True), (9, False)])
def test_what_is_bought_half_as_often_as_before_is_rolled_back(watched: Settings, bought: int, good: bool) -> None:
    for release, purchases in (("r1", 20), ("r2", bought)):
        _happened(watched, release, shown=100, purchases=purchases)
    if good:
        canary.run(watched, "r2", [], print)
        assert seen(watched)[0] == "r2"
        return
    with pytest.raises(canary.Unhealthy, match=r"4\.50% of what was shown was bought, 10\.00% of the current release"):
        canary.run(watched, "r2", [], print)
    assert seen(watched)[0] == "r1"


def _happened(settings: Settings, release: str, *, shown: int, purchases: int) -> None:
    """`shown` times two bundles were shown, and `purchases` of them bought."""
    same = {"region": "north", "day": DAY, "at": datetime(2026, 1, 5, 12, tzinfo=UTC), "release_id": release}
    same |= {"segment": "*"}
    exposures = [same | {"event_id": f"{release}{n}", "anchor": "tea", "bundle_ids": ["a", "b"]} for n in range(shown)]
    outcomes = [same | {"event_id": f"{release}{n}", "kind": "purchase", "bundle_id": "a"} for n in range(purchases)]
    for table, rows in ((EXPOSURES, exposures), (OUTCOMES, outcomes)):
        lake.append(settings, table, pa.Table.from_pylist(rows, lake.arrow_schema(table)))


def test_what_a_person_holds_while_it_is_on_trial_is_not_promoted(watched: Settings) -> None:
    class Person(threading.Event):
        def __call__(self, said: str) -> None:
            if "is on trial" in said and not self.is_set():
                self.set()
                release_switch.in_each(watched, [], "r2", "call from support", print, release_switch.hold)

    with pytest.raises(WrongTransition, match="is held and cannot become current"):
        canary.run(watched, "r2", [], Person())
    assert seen(watched)[3]["r2"] == ledger.state(watched, "south", "r2") == "held"
    release_switch.rollback(watched, "north", "support was right", print)
    assert seen(watched)[0] == "r1"


def test_only_what_waits_or_is_on_trial_can_be_held(watched: Settings) -> None:
    ledger.record(watched, "north", "r3", "staged", as_of=DAY)
    for release, state in (("r1", "current"), ("r3", "staged")):
        with pytest.raises(TandemError, match=f"{release} is {state}, and only what is sealed or on trial"):
            release_switch.hold(watched, "north", release, "wait", print)


def test_the_trial_is_in_a_region_that_the_run_is_for(watched: Settings) -> None:
    south = msgspec.structs.replace(watched, edge_port=1)
    canary.run(south, "r2", ["south"], print)
    assert (ledger.state(south, "north", "r2"), ledger.state(south, "south", "r2")) == ("sealed", "current")


def test_percentiles_and_shares_are_of_the_window_alone() -> None:
    before = Counted(1000, 100, 0, 1000, 0, {0.01: 1000.0, 0.25: 1000.0, 1.0: 1000.0})
    now = Counted(1100, 115, 20, 1100, 2, {0.01: 1050.0, 0.25: 1098.0, 1.0: 1100.0})
    window = Window("r2")
    window.note(Reading("a", "r2", before), 0)
    window.note(Reading("a", "r2", now), 1)
    counted = window.counted
    assert (counted.answers, counted.errors, counted.p99_seconds) == (100, 2, 1.0)
    found = edge_health.judged(Canary(), before, counted)
    assert [line.split(",")[0] for line in found] == [
        "2.0% of the requests failed",
        "99 % within 1 s",
        "20.0% of the answers are stale",
    ]
    assert edge_health.judged(Canary(min_answers=101), before, counted) == []


def test_processes_behind_one_address_are_each_compared_with_themselves() -> None:
    window = Window("r2")
    for process, release, answers in (("a", "r2", 5000), ("b", "r1", 10), ("a", "r2", 5007), ("b", "r2", 20)):
        window.note(Reading(process, release, Counted(answers=answers)), 0)
    assert window.counted.answers == 7
    window.note(Reading("b", "r2", Counted(answers=25)), 1)
    assert window.counted.answers == 12
    window.note(Reading("c", "r1", Counted()), 1)
    assert (window.behind_for(30, 30), window.behind_for(32, 30)) == ("", "r1")


def test_an_edge_that_does_not_serve_the_region_says_nothing_of_it() -> None:
    text = Metrics({}, {}, logger(), Settings(log_share=0)).text()
    assert edge_health.parsed(text, "north") is None
    found = edge_health.parsed(text + 'tandem_release{region="north",release="r1"} 1.0\n', "north")
    assert found is not None
    assert (len(found.process), found.release, found.counted) == (16, "r1", Counted())
