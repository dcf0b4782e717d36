"""nginx in front of an edge, as deploy/images/gateway.conf sets it up; only ports and the folder are changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from benchmarks import _gateway
from tests.edge_service.test_server import Serving, configured, serving

__all__ = ["configured"]
pytestmark = [pytest.mark.servers]

TEA = "/v1/north/bundles/tea"


@pytest.fixture
def behind(configured: Path, require: Callable[[str], str]) -> Iterator[tuple[Serving, httpx.Client]]:
    """An edge and a client of the gateway in front of it."""
    require("nginx")
    with (
        serving(configured, "--region", "north") as (server, _),
        _gateway.up(configured / "gateway", server.port) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        yield server, client


def test_what_the_edge_answers_comes_through_and_what_is_inside_does_not(behind: tuple[Serving, httpx.Client]) -> None:
    _, client = behind
    answer = client.get(TEA)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=1")
    assert client.get(TEA, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.post("/v1/north/offers", json={"skus": ["tea"]}).status_code == 200
    assert client.post("/v1/north/deltas", content="{}").status_code == 401
    assert client.get("/metrics").status_code == 404
    assert client.get("/v1/north/live?skus=" + "x" * 20_000).status_code == 414
    assert client.post("/v1/north/offers", content=b"x" * 2**20 + b"x").status_code == 413


def test_an_edge_that_is_away_is_told_as_a_problem_with_retry_after(behind: tuple[Serving, httpx.Client]) -> None:
    server, client = behind
    server.stop()
    told = client.get(TEA)
    assert (told.status_code, told.headers["retry-after"]) == (503, "1")
    assert told.headers["content-type"] == "application/problem+json"
    assert json.loads(told.content)["status"] == 503


def test_an_address_that_asks_too_much_is_told_to_wait(behind: tuple[Serving, httpx.Client]) -> None:
    _, client = behind
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: client.get(TEA).status_code, range(1_000)))
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 200, "the burst"
    told = next(each for each in (client.get(TEA) for _ in range(1_000)) if each.status_code == 429)
    assert told.headers["retry-after"] == "1"
    assert json.loads(told.content)["type"] == "urn:tandem:problem:rate"
