"""What live activity adds to a release's lists: said so, with an end, and as every offer has to be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from edge_service import candidates
from edge_service.candidates import NONE, LivePair, LivePairs, pack, read
from edge_service.region_store import CANDIDATES, RegionStore
from tandem.bundle import bundle_id
from tests.edge_service.conftest import (
    BUNDLES,
    LISTS,
    PLAIN,
    TEA_CUP,
    TEA_POT,
    Clock,
    RedisProcess,
    publish,
    tell,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

TEA_OIL = bundle_id([("tea", 1), ("oil", 1)])
POT_OIL = bundle_id([("pot", 1), ("oil", 1)])
TTL_SECONDS = 60.0
_batch: Iterator[int] = count()


def offered(store: RegionStore, *pairs: LivePair, ttl: float = TTL_SECONDS) -> None:
    """Put `pairs` in the region's Redis, as the streaming job does."""
    expires_at = int((time.time() + ttl) * 1000)
    assert store.put_candidates("query", next(_batch), pack(LivePairs(1, expires_at, pairs)), int(ttl * 1000))


def pair(anchor: str, companion: str, confidence: float = 0.25, floor: int | None = None) -> LivePair:
    return LivePair(anchor, companion, confidence, 3.5, 7, None, floor)


async def shown(client: httpx.AsyncClient, sku: str, further: str = "") -> list[tuple[str, str]]:
    """Bundles and what speaks for each."""
    answer = (await client.get(f"/v1/north/bundles/{sku}{further}")).json()
    return [(each["id"], each.get("source", "release")) for each in answer["bundles"]]


async def test_a_live_bundle_stands_behind_the_first_of_the_release_and_says_so(
    edge: httpx.AsyncClient, published: RegionStore
) -> None:
    assert await shown(edge, "tea") == [(TEA_CUP.id, "release"), (TEA_POT.id, "release")]
    offered(published, pair("tea", "oil"))

    async def blended() -> bool:
        return await shown(edge, "tea") == [(TEA_CUP.id, "release"), (TEA_OIL, "live"), (TEA_POT.id, "release")]

    await until(blended)
    (live,) = [each for each in (await edge.get("/v1/north/bundles/tea")).json()["bundles"] if each["id"] == TEA_OIL]
    assert (live["list_total"], live["offer_total"], live["discount"], live["sellable"]) == (1_350, 1_350, 0, 5)
    assert live["evidence"] == {"orders_together": 7, "confidence": 0.25, "lift": 3.5}
    assert sum(part["offer_price"] for part in live["components"]) == live["offer_total"]
    token = {"token": live["quote"]["token"]}
    assert (await edge.post("/v1/north/quotes/verify", json=token)).json()["quote"]["offer_total"] == 1_350


async def test_a_product_without_any_list_has_its_live_bundles(edge: httpx.AsyncClient, published: RegionStore) -> None:
    offered(published, pair("pot", "oil"))

    async def blended() -> bool:
        return await shown(edge, "pot") == [(POT_OIL, "live")]

    await until(blended)
    assert (await edge.get("/v1/north/bundles/pot")).json()["matched"] == "region"
    explained = (await edge.get(f"/v1/north/bundles/{POT_OIL}/explain")).json()
    assert "seen_live" in [reason["code"] for reason in explained["reasons"]]


async def test_a_bundle_that_the_release_lists_stays_as_the_release_has_it(
    edge: httpx.AsyncClient, published: RegionStore
) -> None:
    offered(published, pair("pan", "oil", confidence=0.9), pair("pan", "jam"))
    jam = bundle_id([("pan", 1), ("jam", 1)])

    async def blended() -> bool:
        return (jam, "live") in await shown(edge, "pan")

    await until(blended)
    assert (PLAIN.id, "release") in await shown(edge, "pan")
    assert len(await shown(edge, "pan")) == 3


async def test_a_live_bundle_follows_stock_and_prices_and_obeys_its_floor(
    edge: httpx.AsyncClient, published: RegionStore, clock: Clock
) -> None:
    offered(published, pair("pot", "oil", floor=800))

    async def live() -> bool:
        return await shown(edge, "pot") == [(POT_OIL, "live")]

    async def gone() -> bool:
        return await shown(edge, "pot") == []

    await until(live)
    await tell(edge, clock, "oil", list_price=799)
    await until(gone)
    await tell(edge, clock, "oil", list_price=800)
    await until(live)
    await tell(edge, clock, "oil", stock=0)
    await until(gone)


async def test_a_cart_gets_live_bundles_too_net_of_it(edge: httpx.AsyncClient, published: RegionStore) -> None:
    offered(published, pair("tea", "oil", confidence=0.99))
    cart = {"skus": ["tea"], "cart": [{"sku": "oil", "quantity": 2}], "limit": 1}

    async def asked(**further: object) -> list[dict[str, object]]:
        return list((await edge.post("/v1/north/offers", json=cart | further)).json()["bundles"])

    async def first() -> bool:
        found = await asked()
        return bool(found) and found[0].get("source") == "live"

    await until(first)
    (best,) = await asked()
    assert (best["id"], best["sellable"], best["missing"]) == (TEA_OIL, 3, [{"sku": "tea", "quantity": 1}])
    assert TEA_OIL not in [each["id"] for each in await asked(exclude=["oil"], limit=6)]


async def test_candidates_expire_by_the_edges_own_clock_though_redis_is_gone(
    edge: httpx.AsyncClient, published: RegionStore, clock: Clock
) -> None:
    offered(published, pair("pot", "oil"))

    async def live() -> bool:
        return await shown(edge, "pot") == [(POT_OIL, "live")]

    await until(live)
    clock.ahead_seconds = TTL_SECONDS + 1
    assert await shown(edge, "pot") == []


async def test_what_redis_holds_has_an_end_and_a_batch_done_again_changes_nothing(
    published: RegionStore, shared_redis: RedisProcess
) -> None:
    import redis

    first, other = pack(LivePairs(1, 1, (pair("tea", "oil"),))), pack(LivePairs(1, 2, ()))
    assert published.put_candidates("a", 3, first, 60_000)
    assert not published.put_candidates("a", 3, other, 60_000)
    assert not published.put_candidates("a", 2, other, 60_000)
    with redis.Redis.from_url(shared_redis.url) as client:
        assert client.get(CANDIDATES) == first
        assert 0 < client.pttl(CANDIDATES) <= 60_000
    assert published.put_candidates("a", 4, other, 60_000)
    assert published.put_candidates("b", 0, first, 60_000)


async def test_a_new_release_keeps_the_live_bundles_and_never_mixes_with_the_one_before(
    edge: httpx.AsyncClient, published: RegionStore
) -> None:
    offered(published, pair("tea", "oil"))
    publish(published, "r2", BUNDLES, LISTS[1:])

    async def switched() -> bool:
        answer = (await edge.get("/v1/north/bundles/tea")).json()
        names = [(each["id"], each.get("source", "release")) for each in answer["bundles"]]
        return answer["release"] == "r2" and names == [(TEA_OIL, "live")]

    await until(switched)


async def test_an_answer_has_another_etag_when_what_speaks_for_it_changes(
    edge: httpx.AsyncClient, published: RegionStore
) -> None:
    offered(published, pair("pot", "oil", confidence=0.25))

    async def said(confidence: float) -> bool:
        found = (await edge.get("/v1/north/bundles/pot")).json()["bundles"]
        return bool(found) and found[0]["evidence"]["confidence"] == confidence

    await until(lambda: said(0.25))
    before = (await edge.get("/v1/north/bundles/pot")).headers["etag"]
    offered(published, pair("pot", "oil", confidence=0.5))
    await until(lambda: said(0.5))
    assert (await edge.get("/v1/north/bundles/pot")).headers["etag"] != before


async def test_what_nobody_can_read_is_no_candidate_and_harms_no_answer(
    edge: httpx.AsyncClient, published: RegionStore, capfd: pytest.CaptureFixture[str]
) -> None:
    assert published.put_candidates("query", next(_batch), b"\xc1 no such thing", 60_000)

    async def reported() -> bool:
        return "candidates_unreadable" in capfd.readouterr().err

    await until(reported)
    answer = (await edge.get("/v1/north/bundles/tea")).json()
    assert (answer["stale"], [each["id"] for each in answer["bundles"]]) == (False, [TEA_CUP.id, TEA_POT.id])


def test_a_list_that_stays_as_it_was_is_the_same_object() -> None:
    before = read(pack(LivePairs(1, 1_000, (pair("tea", "oil"), pair("pot", "oil")))))
    after = read(pack(LivePairs(1, 2_000, (pair("tea", "oil"), pair("pot", "jam")))), before)
    assert after.places["tea"] is before.places["tea"]
    assert after.places["pot"] is not before.places["pot"]
    with pytest.raises(ValueError, match="format 2"):
        read(pack(LivePairs(2, 1_000, ())))
    with pytest.raises(ValueError, match=str(candidates.MOST_PAIRS)):
        read(pack(LivePairs(1, 1_000, (pair("tea", "oil"),) * (candidates.MOST_PAIRS + 1))), NONE)
