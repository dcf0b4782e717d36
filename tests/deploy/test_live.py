"""What the demo asks of its streaming jobs: it must find what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy import asking, live
from deploy.questions import Wrong
from tandem.settings import Settings
from tests.deploy.test_questions import REGION

NIGHTLY = {"id": "b1", "components": [{"sku": "milk"}, {"sku": "oats"}], "discount": 50}
LIVE = {**NIGHTLY, "id": "b2", "discount": 0, "source": "live"}


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Run the check against an edge and a lake that are given; gives what it said."""

    def run(bundle: dict[str, Any], lines: int, told: str = "orders/3 17  o1  {}") -> list[str]:
        def ask(url: str, body: bytes | None = None, headers: object = None) -> asking.Answer:
            if url.endswith("/events"):
                return asking.Answer(202, {}, json.dumps({"accepted": len(json.loads(body or b"[]"))}).encode())
            return asking.Answer(200, {}, json.dumps({"release": "r1", "bundles": [NIGHTLY, bundle]}).encode())

        monkeypatch.setattr(asking, "ask", ask)
        monkeypatch.setattr(asking, "sql", lambda *_: [{"lines": lines}])
        monkeypatch.setattr(asking, "tandem", lambda *_: told)
        monkeypatch.setattr(live, "SEEN_SECONDS", 0.1)
        said: list[str] = []
        live.check(Settings(home=tmp_path), REGION, ["milk", "oats"], "o1", said.append)
        return said

    return run


def test_a_live_bundle_and_an_order_in_kafka_and_delta_are_told(check: Callable[..., list[str]]) -> None:
    first, second, third = check(LIVE, 2)
    assert "live: milk + oats offered" in first
    assert "in Kafka: order o1 at orders/3, offset 17" in second
    assert "in Delta: order o1, 2 lines" in third


def test_without_a_live_bundle_without_an_order_or_with_a_discount_it_fails(check: Callable[..., list[str]]) -> None:
    with pytest.raises(Wrong, match="no live bundle"):
        check(NIGHTLY, 1)
    with pytest.raises(Wrong, match="order o1 not in Delta"):
        check(LIVE, 0)
    with pytest.raises(Wrong, match="topic orders: 2 messages of order o1, not 1"):
        check(LIVE, 1, "orders/3 17  o1  {}\norders/3 18  o1  {}")
    with pytest.raises(Wrong, match="has a discount"):
        check({**LIVE, "discount": 1}, 1)
