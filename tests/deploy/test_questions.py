"""The demo's own check: it must find an answer that is wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from deploy import asking, buying, questions
from deploy.feed import Feed
from tandem.regions import ObjectStore, Region
from tandem.settings import Settings

SHARD = json.dumps({"anchors": {"milk": {}}}).encode()
STORE = ObjectStore(endpoint="http://cdn", bucket="tandem", public_url="http://cdn/tandem")
REGION = Region(name="east", currency="USD", time_zone="UTC", redis_url="redis://127.0.0.1:1/0", object_store=STORE)


def _bundle(**changes: Any) -> dict[str, Any]:
    parts = [{"sku": "milk", "quantity": 2, "offer_price": 300}, {"sku": "oats", "quantity": 1, "offer_price": 250}]
    quote = {"token": "abcdef", "expires_at": "2026-01-01T00:00:00Z"}
    whole = {"id": "b1", "currency": "USD", "list_total": 600, "offer_total": 550, "discount": 50, "sellable": 4}
    return {**whole, "components": parts, "quote": quote, **changes}


def _answers(**changes: Any) -> dict[str, Any]:
    """What a right edge and CDN say, by the end of the address."""
    aged = {"stale": False, "stock_as_of": "2026-01-01T00:00:00Z", "release": "r1", "currency": "USD"}
    bundle = changes.pop("bundle", _bundle())
    right = {
        "bundles/milk": {**aged, "sku": "milk", "matched": "region", "bundles": [bundle]},
        "offers": {"bundles": [bundle]},
        "live?skus=milk": {**aged, "products": [{"sku": "milk", "stock": 3, "unit_price": 175}]},
        "quotes/verify": {"valid": True, "fault": None, "quote": {"offer_total": bundle["offer_total"]}},
        "bundles/no-such-product": {"bundles": [], "matched": "none"},
        "current.json": {"release": "r1", "shard_count": 1, "shards": [hashlib.sha256(SHARD).hexdigest()]},
    }
    return {**right, **changes}


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., list[str]]:
    """Run the check against given answers; gives what it said."""

    def run(answers: dict[str, Any]) -> list[str]:
        def ask(url: str, body: bytes | None = None, headers: object = None) -> asking.Answer:
            if url.endswith("/0.json"):
                return asking.Answer(200, {"cache-control": "max-age=31536000, immutable"}, SHARD)
            found = next(value for end, value in answers.items() if url.endswith(end))
            if url.endswith("verify") and b'"abcdef"' not in (body or b""):
                found = answers.get("altered", {"valid": False, "fault": "altered", "quote": None})
            return asking.Answer(200, {}, json.dumps(found).encode())

        monkeypatch.setattr(asking, "ask", ask)
        said: list[str] = []
        questions.check(Settings(home=tmp_path), REGION, ["milk"], said.append)
        return said

    return run


def test_right_answers_are_shown_shortly(check: Callable[..., list[str]]) -> None:
    said = check(_answers())
    assert len(said) == 7
    assert "2 × milk + 1 × oats for 5.50 USD instead of 6.00 USD, 4 can be sold" in said[1]


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        (_answers(bundle=_bundle(discount=49)), "does not add up"),
        (_answers(bundle=_bundle(offer_total=551, discount=49)), "does not add up"),
        (_answers(bundle=_bundle(sellable=0)), "cannot be sold"),
        (_answers(**{"bundles/no-such-product": {"bundles": [_bundle()], "matched": "region"}}), "unknown product"),
        (_answers(altered={"valid": True, "fault": None, "quote": None}), "altered quote"),
        (_answers(**{"quotes/verify": {"valid": False, "fault": "expired", "quote": None}}), "not verified"),
        (
            _answers(**{"current.json": {"release": "r2", "shard_count": 1, "shards": ["x"]}}),
            "CDN shows r2, the edge r1",
        ),
        (_answers(**{"current.json": {"release": "r1", "shard_count": 1, "shards": ["x"]}}), "shard 0 is damaged"),
    ],
)
def test_a_wrong_answer_is_found(check: Callable[..., list[str]], answers: dict[str, Any], what: str) -> None:
    with pytest.raises(questions.Wrong, match=what):
        check(answers)


ORDER = {
    "order_id": "o1",
    "currency": "USD",
    "total": 550,
    "lines": [{"line": 1, "sku": "milk", "quantity": 2, "offer_total": 300}],
}


@pytest.fixture
def buy(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., list[str]]:
    """Buy where the order is as given, PostgreSQL says `left` afterwards and the edge `told`."""

    def run(order: dict[str, Any] = ORDER, held: dict[str, Any] = ORDER, left: int = 1, told: int = 1) -> list[str]:
        stock = iter([{"sku": "milk", "stock": 3, "sequence": 1}])
        later = {"sku": "milk", "stock": left, "sequence": 2}

        def ask(url: str, body: bytes | None = None, headers: object = None) -> asking.Answer:
            path = url.rpartition("/east/")[2]
            status, found = {
                "checkout": lambda: (201, order),
                "orders/o1": lambda: (200, held),
                "live?skus=milk": lambda: (200, {"products": [{"sku": "milk", "stock": told}]}),
            }.get(path, lambda: (200, {"products": [next(stock, later)]}))()
            return asking.Answer(status, {}, json.dumps(found).encode())

        monkeypatch.setattr(asking, "ask", ask)
        monkeypatch.setattr(buying, "SEEN_SECONDS", 0.1)
        said: list[str] = []
        buying.check(Settings(home=tmp_path), REGION, _bundle(), said.append)
        return said

    return run


def test_a_bundle_that_was_bought_is_in_postgresql_and_off_the_shelf(buy: Callable[..., list[str]]) -> None:
    bought, seen = buy()
    assert "order o1 for 5.50 USD, in PostgreSQL" in bought
    assert "stock of milk: 3 before, 1 at the edge" in seen


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"order": {**ORDER, "total": 600}}, "600 was charged, 550 offered"),
        ({"held": {**ORDER, "lines": []}}, "PostgreSQL has another order"),
        ({"told": 3}, "the edge says 3 in stock, PostgreSQL 1"),
    ],
)
def test_a_purchase_that_went_wrong_is_found(buy: Callable[..., list[str]], wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(questions.Wrong, match=what):
        buy(**wrong)


def test_the_feed_never_sells_more_than_there_is_and_fills_empty_shelves_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    stock = dict.fromkeys(("a", "b", "c"), 4)
    beats, refilled = 0, False

    def ask(url: str, body: bytes | None = None, headers: object = None) -> asking.Answer:
        nonlocal beats, refilled
        if body is None:
            named = url.rpartition("=")[2].split(",")
            products = [{"sku": sku, "stock": stock[sku]} for sku in named]
            return asking.Answer(200, {}, json.dumps({"products": products}).encode())
        for each in json.loads(body).get("movements", []):
            refilled |= each["change"] > 0
            stock[each["sku"]] += each["change"]
        beats += url.endswith("/deltas")
        return asking.Answer(200, {}, b"{}")

    monkeypatch.setattr(asking, "ask", ask)
    feed = Feed(Settings(home=tmp_path), {"east": list(stock)})
    for _ in range(60):
        assert feed.tick() == 3
        assert min(stock.values()) >= 0
    assert refilled
    assert beats == 60
