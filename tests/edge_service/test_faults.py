"""What goes wrong around an edge: Redis stops, comes back, comes back empty; releases change under way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import msgspec
import pytest
import redis

from edge_service.app import create_app
from edge_service.region_store import LIVE, Delta, RegionStore
from tandem.bundle import AnchorList, Listed
from tests.edge_service.conftest import (
    DELTA_KEY,
    PRODUCTS,
    TEA_CUP,
    TEA_POT,
    Clock,
    RedisProcess,
    client_of,
    now,
    post_delta,
    publish,
    ready,
    region_at,
    settings,
    tell,
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.servers]


@pytest.fixture
async def fragile(own_redis: RedisProcess, tmp_path, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    """An edge whose Redis may be stopped."""
    with RegionStore(region_at(own_redis.url)) as store:
        publish(store, "r1")
        store.seed_live(PRODUCTS, now(clock))
    async with client_of(create_app(settings(tmp_path), [region_at(own_redis.url)], clock=clock)) as client:
        await ready(client)
        yield client


async def tea(client: httpx.AsyncClient) -> dict:  # type: ignore[type-arg]
    answer = await client.get("/v1/north/bundles/tea")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def until_stale(client: httpx.AsyncClient, wanted: bool) -> None:
    async def so() -> bool:
        return (await tea(client))["stale"] is wanted

    await until(so)


async def test_with_redis_gone_answers_go_on_and_say_stale_and_it_catches_up_by_itself(
    fragile: httpx.AsyncClient, own_redis: RedisProcess, clock: Clock
) -> None:
    before = await tea(fragile)
    await tell(fragile, clock, "tea", stock=15)
    own_redis.stop(keep=True)
    await until_stale(fragile, True)
    during = await tea(fragile)
    assert [each["id"] for each in during["bundles"]] == [each["id"] for each in before["bundles"]]
    assert during["bundles"][0]["discount"] == 100, "a short break alone ends no discount"
    assert (await fragile.get("/readyz")).status_code == 200

    refused = await post_delta(fragile, now(clock), "tea", stock=1)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["content-type"] == "application/problem+json"
    assert "127.0.0.1" not in refused.text

    own_redis.start()
    with RegionStore(region_at(own_redis.url)) as store:  # someone else is faster than this edge's reconnect
        store.push([Delta(sku="tea", sequence=10**9, at=now(clock), stock=3)])
        publish(store, "r2", lists=[AnchorList("*", "tea", (Listed(TEA_POT.id, 0.9, "region"),))])

    async def caught_up() -> bool:
        answer = await tea(fragile)
        return not answer["stale"] and answer["release"] == "r2" and answer["bundles"][0]["sellable"] == 3

    await until(caught_up)


async def test_past_its_limit_an_edge_that_is_cut_off_gives_no_discount(
    fragile: httpx.AsyncClient, own_redis: RedisProcess, clock: Clock
) -> None:
    own_redis.stop()
    await until_stale(fragile, True)
    clock.ahead_seconds = 3_600
    assert {each["discount"] for each in (await tea(fragile))["bundles"]} == {0}


async def test_a_redis_that_comes_back_empty_takes_nothing_away(
    fragile: httpx.AsyncClient, own_redis: RedisProcess, clock: Clock
) -> None:
    before = await tea(fragile)
    own_redis.stop()
    await until_stale(fragile, True)
    own_redis.start()
    await until_stale(fragile, False)
    after = await tea(fragile)
    assert [{**each, "quote": None} for each in after["bundles"]] == [{**e, "quote": None} for e in before["bundles"]]

    await tell(fragile, clock, "tea", stock=2)
    first = (await tea(fragile))["bundles"][0]
    assert (first["sellable"], first["list_total"]) == (2, 1000), "the price, which Redis has lost, is still known here"

    with RegionStore(region_at(own_redis.url)) as store:
        publish(store, "r2")

    async def followed() -> bool:
        return (await tea(fragile))["release"] == "r2"

    await until(followed)


async def test_the_edge_goes_back_to_the_release_before_without_reading_it_again(
    fragile: httpx.AsyncClient, own_redis: RedisProcess
) -> None:
    async def shows(name: str) -> bool:
        return (await tea(fragile))["release"] == name

    with RegionStore(region_at(own_redis.url)) as store, redis.Redis.from_url(own_redis.url) as client:
        publish(store, "r2", lists=[AnchorList("*", "tea", (Listed(TEA_POT.id, 0.9, "region"),))])
        await until(lambda: shows("r2"))
        for key in client.scan_iter("tandem:release:r1:*s:[0-9]*"):
            client.delete(key)
        store.switch("r1", "r2")
        await until(lambda: shows("r1"))
        assert len((await tea(fragile))["bundles"]) == 2


async def test_an_edge_that_starts_without_redis_says_what_is_missing_and_becomes_ready(
    own_redis: RedisProcess, tmp_path, clock: Clock
) -> None:
    own_redis.stop()
    async with client_of(create_app(settings(tmp_path), [region_at(own_redis.url)], clock=clock)) as edge:
        assert (await edge.get("/healthz")).json() == {"status": "ok"}
        waiting = await edge.get("/readyz")
        assert (waiting.status_code, waiting.json()) == (
            503,
            {"ready": False, "missing": {"north": ["release", "live"]}, "leaving": False},
        )
        refused = await edge.get("/v1/north/bundles/tea")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await edge.get("/v1/north/live?skus=tea")).json()["stale"] is True
        own_redis.start()
        with RegionStore(region_at(own_redis.url)) as store:
            store.seed_live(PRODUCTS, now(clock))

        async def lacks_release() -> bool:
            return (await edge.get("/readyz")).json()["missing"] == {"north": ["release"]}

        await until(lacks_release)
        with RegionStore(region_at(own_redis.url)) as store:
            publish(store, "r1")
        await ready(edge)
        assert not (await tea(edge))["stale"]


async def test_one_region_without_redis_leaves_the_other_as_it_is(
    clean_redis: RedisProcess, own_redis: RedisProcess, tmp_path, clock: Clock
) -> None:
    regions = [region_at(clean_redis.url), region_at(own_redis.url, "south")]
    for region in regions:
        with RegionStore(region) as store:
            publish(store, "r1")
            store.seed_live(PRODUCTS, now(clock))
    async with client_of(create_app(settings(tmp_path), regions, clock=clock)) as edge:
        await ready(edge)
        own_redis.stop()

        async def south_is_stale() -> bool:
            return (await edge.get("/v1/south/bundles/tea")).json()["stale"]

        await until(south_is_stale)
        assert (await tea(edge))["stale"] is False


async def test_a_release_switch_never_mixes_two_releases_in_an_answer(edge, published: RegionStore) -> None:
    """Every release has its own evidence in lists and bodies alike; an answer with both kinds would show."""
    releases = {"r1": (30, 0.3)}
    for number in range(2, 6):
        name, orders, confidence = f"r{number}", 100 * number, number / 10
        bundles = [msgspec.structs.replace(each, orders_together=orders) for each in (TEA_CUP, TEA_POT)]
        ranked = tuple(Listed(each.id, confidence, "region") for each in bundles)
        publish(published, name, bundles, [AnchorList("*", "tea", ranked)], point=False)
        releases[name] = (orders, confidence)
    releases["r1"] = (30, 0.3)
    seen: dict[str, int] = {}

    async def ask() -> None:
        while len(seen) < len(releases) or sum(seen.values()) < 300:
            answer = await tea(edge)
            seen[answer["release"]] = seen.get(answer["release"], 0) + 1
            orders, confidence = releases[answer["release"]]
            evidence = [each["evidence"] for each in answer["bundles"]]
            assert {each["orders_together"] for each in evidence} == {orders}
            assert evidence[0]["confidence"] == confidence
            await anyio.sleep(0.002)

    async def switch() -> None:
        for number in range(2, 6):
            await anyio.to_thread.run_sync(published.switch, f"r{number}", f"r{number - 1}")
            await anyio.sleep(0.6)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
            group.start_soon(switch)
    assert set(seen) == set(releases)


async def test_a_rollback_is_followed(edge, published: RegionStore) -> None:
    publish(published, "r2", lists=[AnchorList("*", "tea", (Listed(TEA_POT.id, 0.9, "region"),))])

    async def shows(release: str) -> bool:
        return (await tea(edge))["release"] == release

    await until(lambda: shows("r2"))
    published.switch("r1", None)
    await until(lambda: shows("r1"))
    assert (await tea(edge))["bundles"][0]["id"] == TEA_CUP.id


async def test_a_release_that_is_not_whole_is_not_served(
    capfd: pytest.CaptureFixture[str], edge, published: RegionStore
) -> None:
    publish(published, "r2", point=False)
    with redis.Redis.from_url(published.region.redis_url) as client:
        client.delete(next(iter(client.scan_iter("tandem:release:r2:bodies:*"))))
    published.switch("r2", "r1")

    async def reported() -> bool:
        await anyio.sleep(0.1)
        return "release_not_whole" in capfd.readouterr().err

    await until(reported)
    assert (await tea(edge))["release"] == "r1"


async def test_what_cannot_be_read_in_redis_is_reported_and_the_answers_go_on(
    capfd: pytest.CaptureFixture[str], edge, published: RegionStore, clock: Clock
) -> None:
    with redis.Redis.from_url(published.region.redis_url) as client:
        client.xadd("tandem:deltas", {"nonsense": "x"})
        await until_stale(edge, True)
        assert (await tea(edge))["bundles"][0]["id"] == TEA_CUP.id
        client.hset(LIVE, "odd", "not nine words")
        await anyio.sleep(1.5)
        client.hdel(LIVE, "odd")
    await until_stale(edge, False)
    assert "following_failed" in capfd.readouterr().err
    posted = await edge.post("/v1/north/deltas", content=b"{}", headers={"X-Tandem-Key": DELTA_KEY})
    assert posted.status_code == 200
    await tell(edge, clock, "tea", stock=7)


async def test_an_edge_stops_at_whatever_moment_it_is_told_to(published: RegionStore, tmp_path, clock: Clock) -> None:
    """A Redis client that swallows a cancellation held up one stop in ten, for ever."""
    for round_ in range(40):
        with anyio.fail_after(5):
            async with client_of(create_app(settings(tmp_path), [published.region], clock=clock)) as edge:
                for _ in range(round_ * 7 % 40):
                    await edge.get("/healthz")
