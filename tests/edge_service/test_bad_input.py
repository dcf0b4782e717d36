"""Bad input gets a 4xx problem that names the field; never a 5xx."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.edge_service.conftest import DELTA_KEY

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

DEEP = b"[" * 200_000
AT = "2026-01-05T12:00:00Z"
LONG = "x" * 129


def assert_problem(answer: httpx.Response, status: int, field: str | None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["type"]
    if field is not None:
        assert [error["field"] for error in problem["errors"]] == [field]
        assert problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/v1/north/bundles/tea?limit=0", 422, "limit"),
        ("/v1/north/bundles/tea?limit=1000000000", 422, "limit"),
        ("/v1/north/bundles/tea?limit=" + "9" * 5000, 422, "limit"),
        ("/v1/north/bundles/tea?limit=many", 422, "limit"),
        ("/v1/north/bundles/tea?segment=" + LONG, 422, "segment"),
        ("/v1/north/bundles/tea?segment=", 422, "segment"),
        (f"/v1/north/bundles/{LONG}", 404, "sku"),
        ("/v1/north/bundles/", 404, "sku"),
        ("/v1/north/bundles/a%00b", 404, "sku"),
        ("/v1/atlantis/bundles/tea", 404, "region"),
        ("/v1/atlantis/live?skus=tea", 404, "region"),
        ("/v1/north/live", 422, "skus"),
        ("/v1/north/live?skus=,", 422, "skus"),
        ("/v1/north/live?skus=" + ",".join(map(str, range(101))), 422, "skus"),
        (f"/v1/north/live?skus={LONG}", 404, "sku"),
        ("/v1/north/bundles/nope/explain", 404, "id"),
        (f"/v1/north/bundles/nope/explain?anchor={LONG}", 422, "anchor"),
        ("/v2/anything", 404, None),
        ("/v1/north/quotes/verify", 405, None),
        ("/v1/north/offers/", 404, None),
    ],
)
async def test_a_wrong_address_or_query_is_named(
    shared_edge: httpx.AsyncClient, path: str, status: int, field: str
) -> None:
    assert_problem(await shared_edge.get(path), status, field)


async def test_a_path_that_is_no_text_is_no_fault_of_the_server(shared_edge: httpx.AsyncClient) -> None:
    answer = await shared_edge.get("/v1/north/bundles/%FF%FE")
    assert answer.status_code in (200, 404)


async def test_an_unknown_region_is_answered_with_those_served(shared_edge: httpx.AsyncClient) -> None:
    assert "served are north" in (await shared_edge.get("/v1/atlantis/bundles/tea")).json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, "body"),
        (b"tea", 400, "body"),
        (b"\xff\xfe", 400, "body"),
        (DEEP, 422, "body"),
        (b'{"skus":' + DEEP, 422, "skus[0]"),
        (b'{"cart":[', 400, "body"),
        (b"[]", 422, "body"),
        (b"null", 422, "body"),
        (b"{}", 422, "skus"),
        (b'{"skus":[]}', 422, "skus"),
        (b'{"skus":"tea"}', 422, "skus"),
        (b'{"skus":["tea",""]}', 422, "skus[1]"),
        (json.dumps({"skus": [LONG]}).encode(), 422, "skus[0]"),
        (json.dumps({"skus": ["a"] * 101}).encode(), 422, "skus"),
        (b'{"skus":["tea"],"limit":0}', 422, "limit"),
        (b'{"skus":["tea"],"limit":1000000000}', 422, "limit"),
        (b'{"skus":["tea"],"limit":1.5}', 422, "limit"),
        (b'{"skus":["tea"],"limit":' + b"9" * 5000 + b"}", 422, "limit"),
        (b'{"skus":["tea"],"limit":1e999}', 422, "limit"),
        (b'{"skus":["tea"],"colour":"red"}', 422, "colour"),
        (b'{"skus":["tea"],"segment":7}', 422, "segment"),
        (b'{"skus":["tea"],"exclude":[7]}', 422, "exclude[0]"),
        (b'{"cart":[{"sku":"tea","quantity":0}]}', 422, "cart[0].quantity"),
        (b'{"cart":[{"sku":"tea","quantity":-1}]}', 422, "cart[0].quantity"),
        (b'{"cart":[{"sku":"tea"},{"quantity":1}]}', 422, "cart[1].sku"),
        (b'{"cart":[{"sku":"tea","quantity":10000000000000000000000}]}', 422, "cart[0].quantity"),
        (json.dumps({"cart": [{"sku": str(n)} for n in range(10_000)]}).encode(), 422, "cart"),
        (b'{"skus":["' + b"x" * 1024 * 1024 + b'"]}', 413, "body"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
async def test_a_wrong_question_is_named(shared_edge: httpx.AsyncClient, body: bytes, status: int, field: str) -> None:
    assert_problem(await shared_edge.post("/v1/north/offers", content=body), status, field)


async def test_a_body_of_unknown_length_is_cut_off_at_the_limit(shared_edge: httpx.AsyncClient) -> None:
    sent = 0

    async def endless():  # type: ignore[no-untyped-def]
        nonlocal sent
        while sent < 64:
            sent += 1
            yield b" " * 65_536

    assert_problem(await shared_edge.post("/v1/north/offers", content=endless()), 413, "body")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, "body"),
        (b"\n\n", 400, "body"),
        (b"nonsense", 400, "line 1"),
        (b"{}\n{", 400, "line 2"),
        (b"{}\n[]", 422, "line 2"),
        (DEEP, 422, "line 1"),
        (b'{"sku":"a","stock":1,"at":"%b"}' % AT.encode(), 422, "line 1.sequence"),
        (b'{"stock":1,"sequence":1,"at":"%b"}' % AT.encode(), 422, "line 1.sku"),
        (b'{"sku":"a","stock":1,"sequence":1}', 422, "line 1.at"),
        (b'{"sku":"a","stock":1,"sequence":1,"at":"yesterday"}', 422, "line 1.at"),
        (b'{"sku":"a","stock":1,"sequence":1,"at":"2026-01-05T12:00:00"}', 422, "line 1.at"),
        (b'{"sku":"a","stock":1,"sequence":1,"at":"2999-01-05T12:00:00Z"}', 422, "line 1.at"),
        (b'{"at":"2999-01-05T12:00:00Z"}', 422, "line 1.at"),
        (b'{"heartbeat":"yes"}', 422, "line 1.heartbeat"),
        (b'{"sku":"a","sequence":1,"at":"%b"}' % AT.encode(), 422, "line 1.stock"),
        (b'{"sku":"a","stock":-1,"sequence":1,"at":"%b"}' % AT.encode(), 422, "line 1.stock"),
        (b'{"sku":"a","stock":null,"sequence":1,"at":"%b"}' % AT.encode(), 422, "line 1.stock"),
        (b'{"sku":"a","list_price":1.5,"sequence":1,"at":"%b"}' % AT.encode(), 422, "line 1.list_price"),
        (b'{"sku":"a","stock":1,"sequence":0,"at":"%b"}' % AT.encode(), 422, "line 1.sequence"),
        (b'{"sku":"a","stock":1,"sequence":9007199254740992,"at":"%b"}' % AT.encode(), 422, "line 1.sequence"),
        (b'{"sku":"","stock":1,"sequence":1,"at":"%b"}' % AT.encode(), 422, "line 1.sku"),
        (b'{"sku":"a","price":1,"sequence":1,"at":"%b"}' % AT.encode(), 422, "line 1.price"),
        (b" " * (1024 * 1024 + 1), 413, "body"),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else None,
)
async def test_a_wrong_delta_is_named_with_its_line(
    shared_edge: httpx.AsyncClient, body: bytes, status: int, field: str
) -> None:
    answer = await shared_edge.post("/v1/north/deltas", content=body, headers={"X-Tandem-Key": DELTA_KEY})
    assert_problem(answer, status, field)


async def test_of_a_body_with_one_wrong_delta_nothing_is_taken(shared_edge: httpx.AsyncClient) -> None:
    right = {"sku": "tea", "stock": 1, "sequence": 1, "at": AT}
    body = json.dumps(right) + "\n" + json.dumps(right | {"stock": "many"})
    answer = await shared_edge.post("/v1/north/deltas", content=body, headers={"X-Tandem-Key": DELTA_KEY})
    assert_problem(answer, 422, "line 2.stock")
    assert (await shared_edge.get("/v1/north/live?skus=tea")).json()["products"][0]["stock"] == 20


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {DELTA_KEY}"},
        {"Authorization": DELTA_KEY},
        {"X-Tandem-Key": ""},
        {"X-Tandem-Key": DELTA_KEY + "x"},
        {"X-Tandem-Key": "é".encode("latin-1")},
    ],
)
async def test_deltas_need_a_key(shared_edge: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await shared_edge.post("/v1/north/deltas", content=b"{}", headers=headers)
    assert_problem(answer, 401, None)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "sneeze"}, "[0].kind"),
        ({"kind": None}, "[0].kind"),
        ({"event_id": ""}, "[0].event_id"),
        ({"at": "2026-01-05"}, "[0].at"),
        ({"at": "2026-01-05T12:00:00"}, "[0].at"),
        ({"at": "2999-01-05T12:00:00Z"}, "[0].at"),
        ({"bundle_id": 7}, "[0].bundle_id"),
        ({"offer_total": -1}, "[0].offer_total"),
        ({"email": "a@example.org"}, "[0].email"),
    ],
)
async def test_a_wrong_event_is_named(shared_edge: httpx.AsyncClient, change: dict[str, object], field: str) -> None:
    right = {"kind": "click", "event_id": "e", "at": AT, "release": "r1", "bundle_id": "b"}
    assert_problem(await shared_edge.post("/v1/north/events", json=[right | change]), 422, field)
    line = json.dumps(right | change)
    assert_problem(await shared_edge.post("/v1/north/events", content=line), 422, field.replace("[0]", "line 1"))


async def test_too_many_events_at_once_are_refused(shared_edge: httpx.AsyncClient) -> None:
    right = {"kind": "click", "event_id": "e", "at": AT, "release": "r1", "bundle_id": "b"}
    assert_problem(await shared_edge.post("/v1/north/events", json=[right] * 1_001), 413, "body")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [(b"{}", 422, "token"), (b'{"token":7}', 422, "token"), (b"x", 400, "body"), (b'{"token":""}', 422, "token"),
     (b'{"token":"%b"}' % (b"x" * 20_000), 422, "token")],
)  # fmt: skip
async def test_a_wrong_verify_question_is_named(
    shared_edge: httpx.AsyncClient, body: bytes, status: int, field: str
) -> None:
    assert_problem(await shared_edge.post("/v1/north/quotes/verify", content=body), status, field)


async def test_another_method_is_answered_with_the_right_one(shared_edge: httpx.AsyncClient) -> None:
    answer = await shared_edge.delete("/v1/north/offers")
    assert_problem(answer, 405, None)
    assert answer.headers["allow"] == "POST"
