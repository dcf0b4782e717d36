"""A bundle is bought for real: what is charged, what PostgreSQL holds, and what the edge says a moment later."""

from __future__ import annotations

import time
from typing import Any

from deploy import asking
from deploy.questions import Say, Wrong, money, must, ok
from tandem.regions import Region
from tandem.settings import Settings

SEEN_SECONDS = 10.0
"""What a change may take from PostgreSQL to the edge's answer on a busy machine."""


def check(settings: Settings, region: Region, bundle: dict[str, Any], say: Say) -> str:
    """Buy a bundle: PostgreSQL has the order, once, and the edge soon says what stock is left. Raises Wrong.

    Gives the id of the order.
    """
    shop = f"{settings.local_orders}/v1/{region.name}"
    before = ok(asking.ask(f"{shop}/stock?skus={_skus(bundle)}", headers=_staff(settings.feed_key)))
    headers = asking.once()
    asked = {"quotes": [bundle["quote"]["token"]]}
    order, again = (ok(asking.post(f"{shop}/checkout", asked, headers), 201) for _ in range(2))
    must(order == again, "the same Idempotency-Key bought twice")
    must(order["total"] == bundle["offer_total"], f"{order['total']} was charged, {bundle['offer_total']} offered")
    held = ok(asking.ask(f"{shop}/orders/{order['order_id']}", headers=_staff(asking.order_key(settings))))
    must(held["lines"] == order["lines"], f"PostgreSQL has another order: {held}")
    say(f"  bought: order {order['order_id']} for {money(order['total'], order)}, in PostgreSQL")
    for product in before["products"]:
        _seen_at_the_edge(settings, region, product, say)
    return str(order["order_id"])


def _seen_at_the_edge(settings: Settings, region: Region, before: dict[str, Any], say: Say) -> None:
    """The edge's answer is of a later change than what PostgreSQL had before the order."""
    sku, start = before["sku"], time.monotonic()
    held = _staff(settings.feed_key)
    while time.monotonic() - start < SEEN_SECONDS:
        (now,) = ok(asking.ask(f"{settings.local_orders}/v1/{region.name}/stock?skus={sku}", headers=held))["products"]
        (told,) = ok(asking.ask(f"{settings.local_edge}/v1/{region.name}/live?skus={sku}"))["products"]
        if now["sequence"] > before["sequence"] and told["stock"] == now["stock"]:
            waited = time.monotonic() - start
            say(f"  stock of {sku}: {before['stock']} before, {told['stock']} at the edge {waited:.2f} s after")
            return
        time.sleep(0.02)
    raise Wrong(f"{region.name}: {sku}: the edge says {told['stock']} in stock, PostgreSQL {now['stock']}")


def _skus(bundle: dict[str, Any]) -> str:
    return ",".join(part["sku"] for part in bundle["components"])


def _staff(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
