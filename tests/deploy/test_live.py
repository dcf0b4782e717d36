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

    def run(bundle: dict[str, Any], orders: int) -> list[str]:
        def ask(url: str, body: bytes | None = None, headers: object = None) -> asking.Answer:
            if url.endswith("/events"):
                return asking.Answer(202, {}, json.dumps({"accepted": len(json.loads(body or b"[]"))}).encode())
            return asking.Answer(200, {}, json.dumps({"release": "r1", "bundles": [NIGHTLY, bundle]}).encode())

        monkeypatch.setattr(asking, "ask", ask)
        monkeypatch.setattr(asking, "sql", lambda *_: [{"orders": orders, "lines": 2 * orders}])
        monkeypatch.setattr(live, "SEEN_SECONDS", 0.1)
        said: list[str] = []
        live.check(Settings(home=tmp_path), REGION, ["milk", "oats"], said.append)
        return said

    return run


def test_a_live_bundle_and_an_order_in_delta_are_told(check: Callable[..., list[str]]) -> None:
    first, second = check(LIVE, 1)
    assert "live: milk + oats offered" in first
    assert "in Delta: 1 orders placed here, 2 lines" in second


def test_without_a_live_bundle_without_an_order_or_with_a_discount_it_fails(check: Callable[..., list[str]]) -> None:
    with pytest.raises(Wrong, match="no live bundle"):
        check(NIGHTLY, 1)
    with pytest.raises(Wrong, match="no order in Delta"):
        check(LIVE, 0)
    with pytest.raises(Wrong, match="has a discount"):
        check({**LIVE, "discount": 1}, 1)
