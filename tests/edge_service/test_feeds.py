"""What flows in: changes of stock and prices, exposures and outcomes."""

from __future__ import annotations

import itertools
import json
import random
import time

import anyio
import httpx
import msgspec
import pytest
import redis

from edge_service import region_reader, region_store
from edge_service.app import create_app
from edge_service.region_store import Delta, RegionStore
from tests.edge_service.conftest import DELTA_KEY, Clock, client_of, now, post_delta, ready, region_at, settings, until

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

KEY = {"Authorization": f"Bearer {DELTA_KEY}"}
AT = "2026-01-05T12:00:00Z"


def stored_events(store: RegionStore) -> list[dict]:  # type: ignore[type-arg]
    with redis.Redis.from_url(store.region.redis_url) as client:
        return [json.loads(fields[b"event"]) for _, fields in client.xrange(region_store.EVENTS)]


async def product(edge: httpx.AsyncClient, sku: str) -> dict:  # type: ignore[type-arg]
    return (await edge.get("/v1/north/live", params={"skus": sku})).json()["products"][0]


async def test_a_change_is_in_the_answers_at_once(edge: httpx.AsyncClient, clock: Clock) -> None:
    taken = []
    for stock in range(1, 101):
        started = time.perf_counter()
        await post_delta(edge, now(clock), "tea", stock=stock)

        async def seen(wanted: int = stock) -> bool:
            return (await product(edge, "tea"))["stock"] == wanted

        await until(seen, 2)
        taken.append(time.perf_counter() - started)
    assert sorted(taken)[50] < 0.25, "half of them within a quarter of a second, with room for a busy machine"


async def test_changes_out_of_order_and_told_twice_end_in_the_reference_state(
    edge: httpx.AsyncClient, clock: Clock
) -> None:
    rng = random.Random(11)
    lines, reference = [], {}
    for sku, sequence in itertools.product(("tea", "cup", "new"), range(1, 200)):
        kind, value = rng.choice(["stock", "list_price", "sale_price"]), rng.randrange(1, 1000)
        reference.setdefault(sku, {})[kind] = value
        lines.append(json.dumps({"sku": sku, "sequence": sequence, "at": now(clock).isoformat(), kind: value}))
    lines += rng.sample(lines, 60)
    rng.shuffle(lines)
    told = [
        (await edge.post("/v1/north/deltas", content="\n".join(lines[start : start + 100]), headers=KEY)).json()
        for start in range(0, len(lines), 100)
    ]
    assert sum(each["applied"] + each["stale"] for each in told) == len(lines)
    assert sum(each["stale"] for each in told) >= 60

    async def same() -> bool:
        found = [await product(edge, sku) for sku in reference]
        return all(found[n][kind] == v for n, values in enumerate(reference.values()) for kind, v in values.items())

    await until(same)


async def test_two_edges_of_one_region_agree(edge: httpx.AsyncClient, published, tmp_path, clock: Clock) -> None:
    async with client_of(create_app(settings(tmp_path), [published.region], clock=clock)) as other:
        await ready(other)
        await post_delta(edge, now(clock), "tea", stock=3, sale_price=444)

        async def agree() -> bool:
            return (await product(other, "tea"))["sale_price"] == (await product(edge, "tea"))["sale_price"] == 444

        await until(agree)


async def test_an_edge_that_starts_later_has_all_of_it(edge, published, tmp_path, clock: Clock) -> None:
    await post_delta(edge, now(clock), "tea", stock=0)
    async with client_of(create_app(settings(tmp_path), [published.region], clock=clock)) as later:
        await ready(later)
        assert (await product(later, "tea"))["stock"] == 0
        assert await product(later, "cup") == await product(edge, "cup")


async def test_who_is_too_far_behind_takes_a_new_snapshot(
    published: RegionStore, tmp_path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is trimmed to one entry while the edge does not look: what it missed is only in the hash."""
    monkeypatch.setattr(region_reader, "BATCH_ENTRIES", 5)
    monkeypatch.setattr("edge_service.live.BATCH_ENTRIES", 5)
    async with client_of(create_app(settings(tmp_path), [published.region], clock=clock)) as edge:
        await ready(edge)

        def behind() -> None:
            with redis.Redis.from_url(published.region.redis_url) as client:
                for number in range(1, 60):
                    published.push([Delta(sku=f"s{number}", sequence=1, at=now(clock), stock=number)])
                client.xtrim(region_store.DELTAS, maxlen=6, approximate=False)

        behind()  # no await: the edge can't read in between

        async def whole() -> bool:
            stocks = [(await product(edge, f"s{number}"))["stock"] for number in range(1, 60)]
            return stocks == list(range(1, 60))

        await until(whole)


async def test_reading_while_many_change_ends_in_what_redis_holds(
    edge: httpx.AsyncClient, published: RegionStore, clock: Clock
) -> None:
    deltas = [Delta(sku=f"s{n % 500}", sequence=n + 1, at=now(clock), stock=n) for n in range(5_000)]
    await anyio.to_thread.run_sync(published.push, deltas)

    async def last() -> bool:
        return (await product(edge, "s499"))["stock"] == 4_999

    await until(last)
    assert [(await product(edge, f"s{n}"))["stock"] for n in range(0, 500, 50)] == list(range(4_500, 5_000, 50))


async def test_events_land_in_the_regions_stream_as_the_tables_name_them(
    edge: httpx.AsyncClient, published: RegionStore
) -> None:
    events = [
        {"kind": "exposure", "event_id": "e1", "at": AT, "release": "r1", "anchor": "tea", "bundle_ids": ["b1", "b2"],
         "segment": "families", "session_id": "s1"},
        {"kind": "purchase", "event_id": "e2", "at": AT, "release": "r1", "bundle_id": "b1", "offer_total": 900},
    ]  # fmt: skip
    told = await edge.post("/v1/north/events", json=events)
    assert (told.status_code, told.json()) == (202, {"accepted": 2, "sessions_dropped": 0})
    lines = "\n".join(map(json.dumps, events))
    assert (await edge.post("/v1/north/events", content=lines)).json()["accepted"] == 2
    found = stored_events(published)
    assert found[:2] == found[2:]
    assert found[0] == {
        "region": "north", "kind": "exposure", "event_id": "e1", "at": AT, "release_id": "r1", "anchor": "tea",
        "bundle_ids": ["b1", "b2"], "segment": "families", "session_id": "s1",
    }  # fmt: skip
    assert found[1] == {
        "region": "north", "kind": "purchase", "event_id": "e2", "at": AT, "release_id": "r1", "bundle_id": "b1",
        "anchor": None, "offer_total_cents": 900, "session_id": None,
    }  # fmt: skip


async def test_a_session_without_the_regions_consents_is_not_kept(
    published: RegionStore, tmp_path, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    region = msgspec.structs.replace(region_at(published.region.redis_url), consent_purposes=["ads"])
    event = {"kind": "click", "event_id": "e", "at": AT, "release": "r1", "bundle_id": "b", "session_id": "sess-42"}
    async with client_of(create_app(settings(tmp_path), [region], clock=clock)) as edge:
        told = await edge.post("/v1/north/events", json=[event, event | {"consents": ["other"]}])
        assert told.json() == {"accepted": 2, "sessions_dropped": 2}
        assert "sess-42" not in json.dumps(stored_events(published))
        told = await edge.post("/v1/north/events", json=[event | {"consents": ["ads", "other"]}])
        assert told.json() == {"accepted": 1, "sessions_dropped": 0}
    assert stored_events(published)[-1]["session_id"] == "sess-42"
    assert "sess-42" not in capfd.readouterr().err
