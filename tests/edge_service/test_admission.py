"""Who is let in: late requests, limits of addresses and clients, keys with scopes, bodies that take their time."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from click.testing import CliRunner

from edge_service import edge as edge_module
from edge_service.app import create_app
from edge_service.hot_routes import HotRoutes
from edge_service.rates import ASKERS, Addresses, Rates
from edge_service.region_store import RegionStore
from tandem.cli import main
from tandem.clients import Client, hash_of, load, written
from tandem.errors import ConfigError
from tests.edge_service.conftest import DELTA_KEY, client_of, now, ready, settings, until

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

TEA = "/v1/north/bundles/tea"
LIVE = "/v1/north/live?skus=tea"
FEED_KEY, SHOP_KEY = "the-key-of-the-stock-feed", "the-key-of-the-storefront"
CLIENTS = [
    Client(name="feed", sha256=[hash_of(FEED_KEY)], scopes=["deltas"]),
    Client(name="shop", sha256=[hash_of(SHOP_KEY)], scopes=["read", "verify"], rate=0.01, burst=3),
]


@asynccontextmanager
async def edge_with(
    published: RegionStore, tmp_path: Path, *known: Client, **values: object
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an edge with these settings, whose `clients.toml` names the `known`."""
    write_clients(tmp_path, *known)
    async with client_of(create_app(settings(tmp_path, **values), [published.region])) as client:
        await ready(client)
        yield client


def write_clients(home: Path, *known: Client) -> None:
    folder = home / "config"
    folder.mkdir(exist_ok=True)
    (folder / "clients.toml").write_text("\n".join(map(written, known)))


def from_address(edge: httpx.AsyncClient, address: str) -> httpx.AsyncClient:
    transport = edge._transport
    assert isinstance(transport, httpx.ASGITransport)
    return httpx.AsyncClient(transport=httpx.ASGITransport(transport.app, client=(address, 4711)), base_url="http://e")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def app_of(edge: httpx.AsyncClient) -> HotRoutes:
    transport = edge._transport
    assert isinstance(transport, httpx.ASGITransport)
    assert isinstance(transport.app, HotRoutes)
    return transport.app


def counted(metrics: str, name: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(name + " "))


# Load


async def test_who_waited_too_long_is_refused_at_once_and_the_next_is_let_in(
    published: RegionStore, tmp_path: Path
) -> None:
    async with edge_with(published, tmp_path, longest_wait_ms=250) as edge:
        await refused_when_late(edge)


async def refused_when_late(edge: httpx.AsyncClient) -> None:
    async def hold_up() -> None:
        time.sleep(0.4)  # as a long row of requests before it would

    _, late, health, posted = await asyncio.gather(
        hold_up(), edge.get(TEA), edge.get("/healthz"), edge.post("/v1/north/offers", json={"skus": ["tea"]})
    )
    assert [late.status_code, health.status_code, posted.status_code] == [503, 200, 503]
    assert late.headers["retry-after"] == "1"
    assert late.headers["content-type"] == "application/problem+json"
    await anyio.sleep(0.05)
    assert (await edge.get(TEA)).status_code == 200
    metrics = (await edge.get("/metrics")).text
    assert counted(metrics, 'tandem_refused_total{reason="late"}') == 2
    assert counted(metrics, "tandem_loop_late_seconds") > 0.3
    assert not re.search(r'route="/v1[^}]*status="503"', metrics), "the canary would take a crowd for a bad release"


async def test_a_browser_of_another_origin_may_read_that_it_was_refused(published: RegionStore, tmp_path: Path) -> None:
    values = {"address_rate": 0.01, "address_burst": 1, "cors_origins": "https://shop.example"}
    async with edge_with(published, tmp_path, **values) as edge:
        origin = {"Origin": "https://shop.example"}
        told = [await edge.get(path, headers=origin) for path in (TEA, TEA, LIVE)]
        assert [each.status_code for each in told] == [200, 429, 429]
        assert {each.headers["access-control-allow-origin"] for each in told} == {"https://shop.example"}
        assert "RateLimit" in told[0].headers["access-control-expose-headers"]


async def test_refusals_are_logged_together_and_not_one_by_one(
    published: RegionStore, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_module, "WATCH_SECONDS", 0.2)
    async with edge_with(published, tmp_path, address_rate=0.001, address_burst=1, log_share=0.0) as edge:
        for _ in range(50):
            await edge.get(TEA)
        await anyio.sleep(0.5)
    lines = [line for line in capfd.readouterr().err.splitlines() if '"refused"' in line]
    assert len(lines) == 1
    assert '"rate": 49' in lines[0]


async def test_bodies_that_come_together_are_bounded_and_a_slow_one_is_given_up(
    published: RegionStore, tmp_path: Path
) -> None:
    async def slowly(pieces: int, piece: bytes) -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield piece
            await anyio.sleep(0.15)

    async with edge_with(published, tmp_path, body_seconds=0.5, bodies_bytes=150_000) as edge:

        async def post(pieces: int, piece: bytes) -> httpx.Response:
            return await edge.post("/v1/north/offers", content=slowly(pieces, piece))

        slow = await post(30, b" ")
        assert (slow.status_code, slow.json()["type"]) == (408, "urn:tandem:problem:slow")
        together = await asyncio.gather(*[post(2, b" " * 60_000) for _ in range(4)])
        assert {each.status_code for each in together} == {400, 503}, "blank, or too many at once"
        assert app_of(edge).edge.bodies.held == 0
        assert (await edge.post("/v1/north/offers", json={"skus": ["tea"]})).status_code == 200


# Limits


async def test_an_address_past_its_limit_waits_and_others_do_not(published: RegionStore, tmp_path: Path) -> None:
    async with edge_with(published, tmp_path, address_rate=0.01, address_burst=3) as edge:
        first = from_address(edge, "192.0.2.7")
        told = [await first.get(path) for path in (TEA, LIVE, TEA, TEA, LIVE)]
        assert [each.status_code for each in told] == [200, 200, 200, 429, 429]
        assert [each.headers["ratelimit"].split(";")[1] for each in told] == ["r=2", "r=1", "r=0", "r=0", "r=0"]
        assert {each.headers["ratelimit-policy"] for each in told} == {'"address";q=3;w=300'}
        assert 60 < int(told[3].headers["retry-after"]) <= 100
        assert told[4].json()["type"] == "urn:tandem:problem:rate"
        assert (await first.get("/healthz")).status_code == 200, "who watches over it gets through"
        assert (await from_address(edge, "192.0.2.8").get(TEA)).status_code == 200


async def test_a_forwarded_address_counts_only_from_a_trusted_proxy(published: RegionStore, tmp_path: Path) -> None:
    values = {"address_rate": 0.01, "address_burst": 1, "trusted_proxies": "10.0.0.0/8"}
    async with edge_with(published, tmp_path, **values) as edge:
        proxy, other = from_address(edge, "10.1.2.3"), from_address(edge, "203.0.113.9")

        async def asked(client: httpx.AsyncClient, forwarded: str) -> int:
            return (await client.get(TEA, headers={"X-Forwarded-For": forwarded})).status_code

        assert [await asked(proxy, "198.51.100.1"), await asked(proxy, "198.51.100.2")] == [200, 200]
        assert await asked(proxy, "198.51.100.77, 198.51.100.1, 10.9.9.9") == 429, "what a shopper forged comes first"
        assert [await asked(other, "198.51.100.3"), await asked(other, "198.51.100.4")] == [200, 429]


def test_an_ipv6_network_counts_as_one_address() -> None:
    of = Addresses("").of
    same = {of({"client": (text, 1), "headers": []}) for text in ("2001:db8::1", "2001:db8:0:0:ffff::2")}
    assert same == {"2001:db8::/64"}
    assert of({"client": ("::ffff:192.0.2.1", 1), "headers": []}) == "::ffff:192.0.2.1"
    with pytest.raises(ConfigError, match="TANDEM_TRUSTED_PROXIES"):
        Addresses("10.0.0.0/8,proxy.example")


def test_a_bucket_gives_its_burst_and_then_its_rate_and_never_more() -> None:
    rates = Rates("address", 10, 5)
    let_in = [number for number in range(1_000) if not rates.take("a", 100 + number / 100).wait_seconds]
    assert len(let_in) == 5 + 99, "a burst of 5, then 10 a second for 10 seconds"
    assert not rates.take("a", 200).wait_seconds
    wait = [rates.take("b", 300.0) for _ in range(6)][-1].wait_seconds
    assert wait == pytest.approx(0.1)
    assert not rates.take("b", 300.0 + wait).wait_seconds, "the wait that was told is enough"


def test_addresses_are_remembered_within_a_bound() -> None:
    rates = Rates("address", 1, 1)
    for number in range(3 * ASKERS):
        rates.take(number, 100.0)
    assert len(rates._full_at) + len(rates._before) <= ASKERS


async def test_a_client_past_its_limit_waits_wherever_it_asks_from(published: RegionStore, tmp_path: Path) -> None:
    async with edge_with(published, tmp_path, *CLIENTS, open_scopes="verify") as edge:
        told = [
            await from_address(edge, f"192.0.2.{number}").get(path, headers=bearer(SHOP_KEY))
            for number, path in enumerate((TEA, LIVE, TEA, TEA, LIVE))
        ]
        assert [each.status_code for each in told] == [200, 200, 200, 429, 429]
        assert {each.headers["ratelimit-policy"] for each in told} == {'"shop";q=3;w=300'}
        assert [len(each.headers.get_list("ratelimit")) for each in told] == [1] * 5
        assert all("retry-after" in each.headers for each in told[3:])


# Keys


async def test_a_key_opens_what_its_scopes_say_and_nothing_else(published: RegionStore, tmp_path: Path) -> None:
    beat = f'{{"at":"{now(time.time).isoformat()}"}}'

    async def statuses(edge: httpx.AsyncClient, key: str) -> list[int]:
        asked = [
            edge.get(TEA, headers=bearer(key)),
            edge.post("/v1/north/offers", json={"skus": ["tea"]}, headers=bearer(key)),
            edge.post("/v1/north/deltas", content=beat, headers={"X-Tandem-Key": key}),
            edge.post("/v1/north/quotes/verify", json={"token": "x"}, headers=bearer(key)),
            edge.get("/metrics", headers=bearer(key)),
            edge.get("/healthz"),
        ]
        return [(await each).status_code for each in asked]

    async with edge_with(published, tmp_path, *CLIENTS, open_scopes="") as edge:
        assert await statuses(edge, FEED_KEY) == [403, 403, 200, 403, 403, 200]
        assert await statuses(edge, SHOP_KEY) == [200, 200, 403, 200, 403, 200]
        assert await statuses(edge, DELTA_KEY) == [403, 403, 200, 403, 403, 200]
        assert await statuses(edge, "") == [401, 401, 401, 401, 401, 200]
    async with edge_with(published, tmp_path, *CLIENTS) as edge:
        assert await statuses(edge, "") == [200, 200, 401, 200, 200, 200], "what is open asks for no key"


async def test_a_key_is_replaced_and_taken_away_while_the_edge_runs(
    published: RegionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(edge_module, "WATCH_SECONDS", 0.05)
    newer = "another-key-of-the-stock-feed"

    def clients_are(*keys: str) -> None:
        write_clients(tmp_path, Client(name="feed", sha256=[hash_of(key) for key in keys], scopes=["deltas"]))

    async with edge_with(published, tmp_path, CLIENTS[0]) as edge:

        async def works(key: str) -> bool:
            return (await edge.post("/v1/north/deltas", content="{}", headers=bearer(key))).status_code == 200

        async def old_is_gone() -> bool:
            return not await works(FEED_KEY)

        assert [await works(FEED_KEY), await works(newer)] == [True, False]
        clients_are(FEED_KEY, newer)
        await until(lambda: works(newer))
        assert await works(FEED_KEY), "both, while one takes the other's place"
        clients_are(newer)
        await until(old_is_gone)
        path = tmp_path / "config" / "clients.toml"
        path.write_text("[[client]]\nname =")
        os.utime(path, (1, 1))
        await anyio.sleep(0.3)
        assert await works(newer), "a file that can't be read takes nobody's key away"
    assert "clients_not_read" in capfd.readouterr().err


async def test_no_key_is_kept_in_readable_form(published: RegionStore, tmp_path: Path) -> None:
    async with edge_with(published, tmp_path, *CLIENTS) as edge:
        held = repr(vars(app_of(edge).edge.keyring))
        assert not [key for key in (FEED_KEY, SHOP_KEY, DELTA_KEY) if key in held]


def test_the_command_makes_a_key_and_the_lines_that_let_it_in(tmp_path: Path) -> None:
    arguments = ["key", "checkout", "--scope", "verify", "--scope", "read", "--rate", "50"]
    told = CliRunner().invoke(main, arguments, env={"TANDEM_HOME": str(tmp_path)})
    assert told.exit_code == 0, told.output
    key, _, lines = told.output.partition("\n\n")[0].rpartition(" ")[2], "", told.output[told.output.index("[[") :]
    (tmp_path / "clients.toml").write_text(lines)
    (client,) = load(tmp_path)
    assert client == Client(name="checkout", sha256=[hash_of(key)], scopes=["verify", "read"], rate=50)
    assert key not in lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[client]]\nname = "a"\nsha256 = ["the-key-itself"]\nscopes = ["read"]', "is no SHA-256"),
        ('[[client]]\nname = "a"\nsha256 = []\nscopes = ["read"]', "needs a name, a hash and a scope"),
        ('[[client]]\nname = "a"\nsha256 = ["' + "0" * 64 + '"]\nscopes = ["all"]', "scopes"),
        ('[[client]]\nname = "a"\nkey = "b"', "key"),
        (written(CLIENTS[0]) + written(CLIENTS[0]), "feed stands there twice"),
    ],
)
def test_a_wrong_file_of_clients_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "clients.toml").write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        load(tmp_path)
    assert "clients.toml" in str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"delta_keys": "short"}, "TANDEM_DELTA_KEYS needs 16 characters"),
        ({"open_scopes": "read,deltas"}, "'deltas' can't be open"),
        ({"open_scopes": "everything"}, "'everything' can't be open"),
        ({"trusted_proxies": "proxy"}, "TANDEM_TRUSTED_PROXIES"),
    ],
)
def test_a_setting_that_would_open_what_should_be_shut_is_refused(
    tmp_path: Path, values: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        create_app(settings(tmp_path, **values), [])
