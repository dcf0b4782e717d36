"""A trial before a real edge of two processes with real requests: what does well stays, what does badly goes."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import pytest

from edge_service.region_store import RegionStore
from spark_jobs import canary
from tandem import regions
from tandem.settings import Settings
from tests.edge_service.conftest import LISTS, PRODUCTS
from tests.edge_service.test_server import Serving
from tests.spark_jobs.test_release_switch import Sealed, promote, sealed, seen, shop
from warehouse import ledger

__all__ = ["sealed", "shop"]
pytestmark = pytest.mark.servers


@pytest.fixture
def served(shop: Settings, sealed: Sealed) -> Iterator[Settings]:
    """r1 is current in north, whose edge is asked for tea all the time; r2 waits, and r3, which has no tea."""
    sealed("r1", "r2")
    sealed("r3", lists=LISTS[2:])
    promote(shop, "r1")
    with RegionStore(regions.load(shop.config_folder).get("north")) as store:
        store.seed_live(PRODUCTS, datetime.now(UTC))
    (shop.home / "config").symlink_to(shop.config_folder)
    (shop.config_folder / "gates.toml").write_text(
        "[canary]\nmin_answers = 10\nmax_p99_seconds = 5\n", encoding="ascii"
    )
    server = Serving(shop.home, "--region", "north", "--workers", "2")
    done = threading.Event()
    asking = threading.Thread(target=_ask, args=(server.port, done))
    try:
        server.wait().close()
        asking.start()
        yield msgspec.structs.replace(shop, edge_port=server.port, canary_seconds=2.0)
    finally:
        done.set()
        asking.join()
        server.stop()


def _ask(port: int, done: threading.Event) -> None:
    """A connection for each request, so that both processes get some."""
    while not done.wait(0.01):
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/north/bundles/tea", timeout=10).close()


def test_a_good_release_stays_and_a_bad_one_is_rolled_back_by_itself(served: Settings) -> None:
    canary.run(served, "r2", ["north"], print)
    assert seen(served)[0] == "r2"
    (why,) = [row["reason"] for row in ledger.history(served, "r2") if row["state"] == "current"]
    counted = re.match(r"healthy on trial: (\d+) requests, 0 failed, (\d+) answers, 0 empty, 0 stale", why)
    assert counted, why
    assert int(counted[1]) >= int(counted[2]) >= 10

    with pytest.raises(canary.Unhealthy, match=r"100\.0% of the answers are empty, 0\.0% before"):
        canary.run(served, "r3", ["north"], print)
    assert seen(served)[:3] == ("r2", "r1", "r2")
    assert ledger.state(served, "north", "r3") == "quarantined"
