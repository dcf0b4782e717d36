"""A quote is honoured only as it was given: here, now, unaltered."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator

import anyio
import httpx
import msgspec
import pytest

from benchmarks.quotes import judged
from edge_service.app import create_app
from edge_service.region_store import RegionStore
from tests.edge_service.conftest import (
    PRODUCTS,
    QUOTE_KEYS,
    Clock,
    RedisProcess,
    client_of,
    now,
    publish,
    ready,
    region_at,
    settings,
    tell,
)

pytestmark = [pytest.mark.anyio, pytest.mark.servers]


async def quoted(edge: httpx.AsyncClient, region: str = "north") -> str:
    return (await edge.get(f"/v1/{region}/bundles/tea")).json()["bundles"][0]["quote"]["token"]


async def verify(edge: httpx.AsyncClient, token: str, region: str = "north") -> dict:  # type: ignore[type-arg]
    answer = await edge.post(f"/v1/{region}/quotes/verify", json={"token": token})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_quote_tells_checkout_what_to_charge(edge: httpx.AsyncClient) -> None:
    offered = (await edge.get("/v1/north/bundles/tea?segment=families")).json()["bundles"][0]
    told = await verify(edge, offered["quote"]["token"])
    assert (told["valid"], told["fault"]) == (True, None)
    assert told["quote"] == {
        "bundle_id": offered["id"],
        "segment": "families",
        "release": "r1",
        "currency": "USD",
        "offer_total": offered["offer_total"],
        "components": [
            {name: part[name] for name in ("sku", "quantity", "offer_price")} | {"return_values": [part["offer_price"]]}
            for part in offered["components"]
        ],
        "expires_at": offered["quote"]["expires_at"],
    }


async def test_a_quote_says_what_each_unit_is_worth_when_it_is_sent_back(edge: httpx.AsyncClient, clock: Clock) -> None:
    await tell(edge, clock, "cup", list_price=253)
    told = await verify(edge, await quoted(edge))
    assert [part["return_values"] for part in told["quote"]["components"]] == [[450], [228, 227]]
    parts = told["quote"]["components"]
    assert sum(value for part in parts for value in part["return_values"]) == told["quote"]["offer_total"]


async def own_quote(edge: httpx.AsyncClient) -> str:
    offers = await edge.post("/v1/north/offers", json={"skus": ["tea"]})
    return offers.json()["bundles"][0]["quote"]["token"]


async def test_a_quote_may_be_used_up_at_any_edge(edge: httpx.AsyncClient, published, tmp_path, clock: Clock) -> None:
    token, other = await own_quote(edge), await own_quote(edge)
    assert token != other
    once = {"token": token, "once": True}
    async with client_of(create_app(settings(tmp_path), [published.region], clock=clock)) as elsewhere:
        first = (await elsewhere.post("/v1/north/quotes/verify", json=once)).json()
    again = (await edge.post("/v1/north/quotes/verify", json=once)).json()
    assert (first["valid"], again["valid"], again["fault"], again["quote"]) == (True, False, "used", None)
    assert (await verify(edge, other))["valid"]


async def test_a_quote_that_everyone_gets_can_not_be_used_up(edge: httpx.AsyncClient) -> None:
    asked = {"token": await quoted(edge), "once": True}
    assert (await edge.post("/v1/north/quotes/verify", json=asked)).json()["fault"] == "shared"
    assert await quoted(edge) == await quoted(edge)


async def test_thousands_of_bad_quotes_and_none_is_accepted(clean_redis: RedisProcess) -> None:
    """The same as `make bench-quotes` does with a million."""
    checkout = await judged(clean_redis.url, 20_000)
    assert checkout.judged.total() == 20_000
    assert checkout.accepted.total() == 0
    told = {way: set(faults) for way, faults in checkout.faults.items()}
    for way in ("fields changed, old signature", "signed with another secret", "signature of another quote"):
        assert told.pop(way) == {"altered"}
    assert told.pop("of another region") == {"wrong_region"}
    assert told.pop("expired") == {"expired"}
    assert told.pop("used before") == {"used"}
    assert all(faults <= {"altered", "malformed", "unknown_key"} for faults in told.values())


async def test_of_many_who_use_a_quote_at_once_one_may(edge: httpx.AsyncClient) -> None:
    asked, told = {"token": await own_quote(edge), "once": True}, []

    async def use() -> None:
        told.append((await edge.post("/v1/north/quotes/verify", json=asked)).json()["fault"])

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(use)
    assert sorted(told, key=str) == [None] + ["used"] * 49


async def test_a_quote_names_no_segment_that_the_release_does_not_know(edge: httpx.AsyncClient) -> None:
    token = (await edge.get("/v1/north/bundles/tea?segment=made-up")).json()["bundles"][0]["quote"]["token"]
    assert (await verify(edge, token))["quote"]["segment"] == "*"


async def test_a_quote_expires(edge: httpx.AsyncClient, clock: Clock) -> None:
    token = await quoted(edge)
    clock.ahead_seconds = 299
    assert (await verify(edge, token))["valid"]
    clock.ahead_seconds = 601
    assert (await verify(edge, token))["fault"] == "expired"


async def test_an_altered_quote_is_refused(edge: httpx.AsyncClient) -> None:
    body, _, mac = (await quoted(edge)).partition(".")
    told = msgspec.json.decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    told[7] = 1  # the total
    cheaper = urlsafe_b64encode(msgspec.json.encode(told)).rstrip(b"=").decode()
    assert (await verify(edge, f"{cheaper}.{mac}"))["fault"] == "altered"
    flipped = ("A" if mac[0] != "A" else "B") + mac[1:]
    assert (await verify(edge, f"{body}.{flipped}"))["fault"] == "altered"


@pytest.mark.parametrize("token", ["x", ".", "a.b", "é.é", "W10.W10", "=" * 50, "\u0000.\u0000"])
async def test_what_is_no_quote_is_malformed(shared_edge: httpx.AsyncClient, token: str) -> None:
    told = await verify(shared_edge, token)
    assert (told["valid"], told["fault"], told["quote"]) == (False, "malformed", None)


async def test_a_quote_nested_without_end_is_malformed(shared_edge: httpx.AsyncClient) -> None:
    endless = urlsafe_b64encode(b'["k1","n","s","r","b","USD",[],1,1,"n",' + b"[" * 10_000).rstrip(b"=").decode()
    assert (await verify(shared_edge, f"{endless}.W10"))["fault"] == "malformed"


@pytest.fixture
async def two_regions(clean_redis, tmp_path, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    """One process that serves two regions."""
    south = region_at(clean_redis.url.removesuffix("0") + "2", "south")
    regions = [region_at(clean_redis.url), south]
    for region in regions:
        with RegionStore(region) as store:
            publish(store, "r1")
            store.seed_live(PRODUCTS, now(clock))
    async with client_of(create_app(settings(tmp_path), regions, clock=clock)) as client:
        await ready(client)
        yield client


async def test_a_quote_of_another_region_is_refused(two_regions: httpx.AsyncClient) -> None:
    token = await quoted(two_regions, "south")
    assert (await verify(two_regions, token, "south"))["valid"]
    assert (await verify(two_regions, token, "north"))["fault"] == "wrong_region"


async def test_keys_rotate_without_a_gap(published: RegionStore, tmp_path, clock: Clock) -> None:
    newer, newest = "k2:abcdefabcdefabcdef", "k3:ffffffffffffffffffff"

    async def with_keys(keys: str, token: str = "") -> tuple[str, dict]:  # type: ignore[type-arg]
        app = create_app(settings(tmp_path, quote_keys=keys), [published.region], clock=clock)
        async with client_of(app) as edge:
            await ready(edge)
            return await quoted(edge), await verify(edge, token) if token else {}

    old, _ = await with_keys(QUOTE_KEYS)
    new, told = await with_keys(f"{newer},{QUOTE_KEYS}", old)
    assert told["valid"]
    assert (await with_keys(f"{newest},{newer}", new))[1]["valid"]
    assert (await with_keys(newest, old))[1]["fault"] == "unknown_key"
