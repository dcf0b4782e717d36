"""The link between an edge and its Redis goes bad in every way: no answer fails, none is wrong, none is mixed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import httpx
import msgspec
import pytest
import redis

from edge_service.app import create_app
from edge_service.region_store import Delta, RegionStore
from tandem.bundle import AnchorList, Listed
from tandem.settings import Settings
from tests.e2e.proxies import Proxy
from tests.edge_service.conftest import (
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
    until,
)

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

HOUR = 3_600
PATHS = ("/v1/north/bundles/tea", "/v1/north/bundles/cup", "/v1/north/bundles/pan?segment=families")


class BadLink(Proxy):
    """Passes bytes on, late, broken or not at all, as `fault` says at that moment."""

    fault = ""

    def sent(self, data: bytes) -> None:
        if self.fault == "cut":
            raise ConnectionResetError
        while self.fault == "half-open":
            time.sleep(0.01)

    def answered(self, data: bytes) -> bytes | None:
        if self.fault == "cut":
            raise ConnectionResetError
        if self.fault == "late":
            time.sleep(0.1)
        if self.fault == "garbage":
            return random.Random(len(data)).randbytes(len(data))
        while self.fault == "half-open":
            time.sleep(0.01)
        return None

    def retarget(self, port: int) -> None:
        """New connections lead elsewhere, those that are open end."""
        self._target = port
        self.end_open()


@pytest.fixture
def link(own_redis: RedisProcess) -> Iterator[BadLink]:
    with closing(BadLink(own_redis.port)) as proxy:
        yield proxy


def at(link: BadLink) -> str:
    return f"redis://127.0.0.1:{link.port}/0"


@asynccontextmanager
async def edge_over(
    link: BadLink, own_redis: RedisProcess, tmp_path: Path, clock: Clock
) -> AsyncIterator[httpx.AsyncClient]:
    with RegionStore(region_at(own_redis.url)) as store:
        publish(store, "r1")
        store.seed_live(PRODUCTS, now(clock))
    async with client_of(create_app(settings(tmp_path, log_share=0.0), [region_at(at(link))], clock=clock)) as client:
        await ready(client)
        yield client


class Watch:
    """Asks all the time, and holds every answer to what may be true."""

    def __init__(self, client: httpx.AsyncClient, prices: dict[str, set[int]]) -> None:
        self.client, self.prices = client, prices
        self.answers = self.stale = 0
        self.over = False

    async def go_on(self) -> None:
        while not self.over:
            for path in PATHS:
                await self.ask(path)
            told = await self.client.post("/v1/north/offers", json={"cart": [{"sku": "tea"}], "skus": ["pan"]})
            self.check(told)
            await anyio.sleep(0.002)

    async def ask(self, path: str) -> dict:  # type: ignore[type-arg]
        told = await self.client.get(path)
        return self.check(told)

    def check(self, told: httpx.Response) -> dict:  # type: ignore[type-arg]
        assert told.status_code == 200, told.text
        answer: dict = told.json()  # type: ignore[type-arg]
        self.answers += 1
        self.stale += answer["stale"]
        for each in answer["bundles"]:
            assert each["list_total"] == each["offer_total"] + each["discount"]
            assert each["offer_total"] == sum(part["offer_price"] for part in each["components"])
            assert each["list_total"] == sum(part["unit_price"] * part["quantity"] for part in each["components"])
            for part in each["components"]:
                assert part["unit_price"] in self.prices[part["sku"]], part
        return answer


def prices() -> dict[str, set[int]]:
    return {row.sku: {(row.sale_price if isinstance(row.sale_price, int) else row.list_price) or 0} for row in PRODUCTS}


@asynccontextmanager
async def watched(client: httpx.AsyncClient) -> AsyncIterator[Watch]:
    watch = Watch(client, prices())
    async with asyncio.TaskGroup() as group:
        group.create_task(watch.go_on())
        try:
            yield watch
        finally:
            watch.over = True


@pytest.mark.parametrize("fault", ["late", "cut", "garbage", "half-open"])
async def test_answers_go_on_while_the_link_is_bad_and_catch_up_when_it_is_mended(
    fault: str, link: BadLink, own_redis: RedisProcess, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_service.region_reader.TIMEOUT_SECONDS", 1.5)
    async with edge_over(link, own_redis, tmp_path, clock) as edge, watched(edge) as watch:
        await anyio.sleep(0.2)
        link.fault = fault
        link.end_open()
        watch.prices["tea"].add(523)
        with RegionStore(region_at(own_redis.url)) as store:
            store.push([Delta(sku="tea", sequence=1, at=now(clock), list_price=523, stock=3)])
        if fault != "late":
            refused = await post_delta(edge, now(clock), "cup", stock=1)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1"), (
                "what can't be kept is not taken"
            )

            async def said() -> bool:
                return watch.stale > 0

            await until(said)
        else:
            await anyio.sleep(1.5)
        link.fault = ""

        async def mended() -> bool:
            first = await watch.ask(PATHS[0])
            return not first["stale"] and first["bundles"][0]["components"][0]["unit_price"] == 523

        await until(mended, 20)
        assert watch.answers > 50


async def test_an_hour_without_redis_everything_is_answered_and_nothing_is_discounted_past_the_limit(
    link: BadLink, own_redis: RedisProcess, tmp_path: Path, clock: Clock
) -> None:
    """Redis, its feed and (which no edge asks) the object store are away; time runs 20 s at a step."""
    limit = Settings().stock_limit_seconds
    async with edge_over(link, own_redis, tmp_path, clock) as edge:
        watch = Watch(edge, prices())
        assert (await watch.ask(PATHS[0]))["bundles"][0]["discount"] == 100
        own_redis.stop()

        async def said() -> bool:
            return (await watch.ask(PATHS[0]))["stale"]

        await until(said)
        watch.answers = watch.stale = 0
        for second in range(20, HOUR + 20, 20):
            clock.ahead_seconds = second
            for path in PATHS:
                answer = await watch.ask(path)
                assert answer["bundles"]
                if second > limit:
                    assert {each["discount"] for each in answer["bundles"]} == {0}
            posted = watch.check(await edge.post("/v1/north/offers", json={"skus": ["tea", "pan"]}))
            assert second <= limit or not any(each["discount"] for each in posted["bundles"])
            assert (await edge.get("/v1/north/live?skus=tea")).json()["stale"]
            assert (await edge.get("/healthz")).status_code == 200
        assert watch.stale == watch.answers == 4 * HOUR // 20, "every answer said so"


async def test_a_replica_takes_over_while_it_serves(
    link: BadLink, own_redis: RedisProcess, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, clock: Clock
) -> None:
    replica = RedisProcess(tmp_path_factory.mktemp("replica"))
    replica.start()
    try:
        async with edge_over(link, own_redis, tmp_path, clock) as edge:
            with redis.Redis.from_url(replica.url) as other:
                other.replicaof("127.0.0.1", str(own_redis.port))

                async def has_all() -> bool:
                    return other.info("replication")["master_link_status"] == "up"

                await until(has_all, 20)
                async with watched(edge) as watch:
                    watch.prices["tea"] |= set(range(600, 700))
                    for number in range(20):
                        await post_delta(edge, now(clock), "tea", list_price=600 + number)
                    await anyio.to_thread.run_sync(lambda: _in_step(own_redis, other))
                    other.replicaof("no", "one")
                    own_redis.stop()
                    link.retarget(replica.port)

                    async def takes_changes() -> bool:
                        return (await post_delta(edge, now(clock), "tea", list_price=690)).status_code == 200

                    await until(takes_changes)

                    async def shows_them() -> bool:
                        first = await watch.ask(PATHS[0])
                        return not first["stale"] and first["bundles"][0]["components"][0]["unit_price"] == 690

                    await until(shows_them)
                    assert watch.answers > 20
    finally:
        replica.stop()


async def test_where_the_replica_is_away_the_primary_is_read(
    link: BadLink, own_redis: RedisProcess, tmp_path: Path, clock: Clock
) -> None:
    """The link stands for the replica; the primary is reached without it."""
    with RegionStore(region_at(own_redis.url)) as store:
        publish(store, "r1")
        store.seed_live(PRODUCTS, now(clock))
    region = region_at(own_redis.url, redis_replica_url=at(link))
    async with client_of(create_app(settings(tmp_path, log_share=0.0), [region], clock=clock)) as edge:
        await ready(edge)
        async with watched(edge) as watch:
            watch.prices["tea"] |= {611}
            link.close()
            assert (await post_delta(edge, now(clock), "tea", list_price=611)).status_code == 200

            async def shows_it() -> bool:
                first = await watch.ask(PATHS[0])
                return not first["stale"] and first["bundles"][0]["components"][0]["unit_price"] == 611

            await until(shows_it)
            with RegionStore(region_at(own_redis.url)) as store:
                publish(store, "r2")

            async def follows() -> bool:
                return (await watch.ask(PATHS[0]))["release"] == "r2"

            await until(follows)


def _in_step(primary: RedisProcess, replica: redis.Redis) -> None:
    with redis.Redis.from_url(primary.url) as client:
        while client.info("replication")["master_repl_offset"] != replica.info("replication")["master_repl_offset"]:
            time.sleep(0.01)


async def test_new_releases_and_deltas_under_load_give_no_error_and_no_mixed_answer(
    edge: httpx.AsyncClient, published: RegionStore, clock: Clock
) -> None:
    """Every release has evidence of its own in lists and bodies; four askers at full speed, seven switches."""
    for number in range(2, 8):
        bundles = [msgspec.structs.replace(each, orders_together=100 * number) for each in (TEA_CUP, TEA_POT)]
        ranked = tuple(Listed(each.id, number / 10, "region") for each in bundles)
        publish(published, f"r{number}", bundles, [AnchorList("*", "tea", ranked)], point=False)
    evidence: dict[str, set[tuple[int, float]]] = {}
    over = False

    async def ask(watch: Watch) -> None:
        while not over:
            answer = await watch.ask(PATHS[0])
            found = evidence.setdefault(answer["release"], set())
            told = [each["evidence"] for each in answer["bundles"]]
            found |= {(each["orders_together"], each["confidence"]) for each in told}
            await anyio.sleep(0)

    watch = Watch(edge, prices() | {"tea": set(range(500, 600))})
    with anyio.fail_after(60):
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ask(watch))
            for step in range(7):
                name = f"r{2 + step % 6}"
                await anyio.to_thread.run_sync(published.switch, name, None)
                published.push([Delta(sku="tea", sequence=step + 1, at=now(clock), list_price=500 + step)])

                async def shown(wanted: str = name) -> bool:
                    return (await watch.ask(PATHS[0]))["release"] == wanted

                await until(shown)
            over = True
    assert evidence.pop("r1", {(30, 0.3), (30, 0.2)}) <= {(30, 0.3), (30, 0.2)}
    assert evidence == {f"r{number}": {(100 * number, number / 10)} for number in range(2, 8)}
    assert watch.answers > 500
