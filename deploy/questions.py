"""A few real questions to the edge and the CDN, and whether the answers hold together."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

from deploy import asking
from tandem.errors import TandemError
from tandem.regions import Region
from tandem.settings import Settings

Say = Callable[[str], object]


class Wrong(TandemError):
    """An answer is not what it has to be."""


def check(settings: Settings, region: Region, anchors: list[str], say: Say) -> dict[str, Any]:
    """Ask the edge and the CDN of one region, and say what they answered; gives the best bundle of a popular product.

    Raises Wrong at the first wrong answer.
    """
    edge = f"{settings.local_edge}/v1/{region.name}"
    shown = _bundles(edge, anchors, region, say)
    _offers(edge, shown, say)
    _live(edge, shown["sku"], say)
    _quote(edge, shown["bundles"][0], say)
    _unknown(edge, say)
    _cdn(region, shown, say)
    return dict(shown["bundles"][0])


def _bundles(edge: str, anchors: list[str], region: Region, say: Say) -> dict[str, Any]:
    """The first of the popular products that has a bundle on sale right now."""
    for sku in anchors:
        answer = ok(asking.ask(f"{edge}/bundles/{sku}"))
        if answer["bundles"]:
            break
    else:
        raise Wrong(f"{region.name}: none of {len(anchors)} popular products has a bundle that can be sold")
    must(not answer["stale"], f"{region.name}: live data are stale: {answer['stock_as_of']}")
    for bundle in answer["bundles"]:
        _adds_up(bundle)
    best = answer["bundles"][0]
    parts = " + ".join(f"{part['quantity']} × {part['sku']}" for part in best["components"])
    price, before = money(best["offer_total"], best), money(best["list_total"], best)
    saved = f"instead of {before}" if price != before else "without a discount"
    say(f"  product {sku}: {len(answer['bundles'])} bundles, evidence: {answer['matched']}")
    say(f"  the best: {parts} for {price} {saved}, {best['sellable']} can be sold")
    return dict(answer)


def _offers(edge: str, shown: dict[str, Any], say: Say) -> None:
    """A cart that holds the first component already: what is offered then is net of it, and still adds up."""
    cart = [{"sku": shown["sku"], "quantity": 1}]
    answer = ok(asking.post(f"{edge}/offers", {"cart": cart, "limit": 3}))
    for bundle in answer["bundles"]:
        _adds_up(bundle)
    say(f"  a cart with {shown['sku']}: {len(answer['bundles'])} offers")


def _live(edge: str, sku: str, say: Say) -> None:
    answer = ok(asking.ask(f"{edge}/live?skus={sku}"))
    (product,) = answer["products"]
    must(product["stock"] is not None and product["unit_price"] is not None, f"product {sku} has no live state")
    say(f"  live: {product['stock']} in stock at {money(product['unit_price'], answer)}, as of {answer['stock_as_of']}")


def _quote(edge: str, bundle: dict[str, Any], say: Say) -> None:
    answer = ok(asking.post(f"{edge}/quotes/verify", {"token": bundle["quote"]["token"]}))
    must(answer["valid"] and answer["quote"]["offer_total"] == bundle["offer_total"], "the quote is not verified")
    altered = ok(asking.post(f"{edge}/quotes/verify", {"token": _altered(bundle["quote"]["token"])}))
    must(not altered["valid"], "an altered quote is taken for valid")
    say(f"  quote: valid until {bundle['quote']['expires_at']}; altered by one letter: {altered['fault']}")


def _altered(token: str) -> str:
    middle = len(token) // 2
    return token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]


def _unknown(edge: str, say: Say) -> None:
    answer = ok(asking.ask(f"{edge}/bundles/no-such-product"))
    must(answer["bundles"] == [] and answer["matched"] == "none", "an unknown product has bundles")
    say("  an unknown product: no bundles, matched none")


def _cdn(region: Region, shown: dict[str, Any], say: Say) -> None:
    """The manifest names the release that the edge answers from, and the checksum of the product's shard."""
    root = f"{region.object_store.public_url}/{region.name}"
    manifest = ok(asking.ask(f"{root}/current.json"))
    must(manifest["release"] == shown["release"], f"the CDN shows {manifest['release']}, the edge {shown['release']}")
    number = zlib.crc32(shown["sku"].encode()) % manifest["shard_count"]
    shard = asking.ask(f"{root}/{manifest['release']}/{number}.json")
    must(hashlib.sha256(shard.body).hexdigest() == manifest["shards"][number], f"shard {number} is damaged")
    must(shown["sku"] in shard.json["anchors"], f"shard {number} does not hold {shown['sku']}")
    must("immutable" in shard.headers.get("cache-control", ""), "a shard may change, say its headers")
    say(f"  CDN: release {manifest['release']}, shard {number} of {manifest['shard_count']}: checksum agrees")


def _adds_up(bundle: dict[str, Any]) -> None:
    parts = sum(part["offer_price"] for part in bundle["components"])
    whole = bundle["offer_total"]
    must(parts == whole == bundle["list_total"] - bundle["discount"], f"bundle {bundle['id']} does not add up")
    must(bundle["sellable"] > 0, f"bundle {bundle['id']} is offered and cannot be sold")


def ok(answer: asking.Answer, status: int = 200) -> dict[str, Any]:
    """What it answers. Raises Wrong for another status."""
    if answer.status != status:
        raise Wrong(f"answered {answer.status}: {answer.body[:300].decode(errors='replace')}")
    return dict(answer.json)


def must(true: object, otherwise: str) -> None:
    """Raises Wrong unless `true`."""
    if not true:
        raise Wrong(otherwise)


def money(minor: int, named: dict[str, Any]) -> str:
    """An amount as a person reads it, in the currency of what names one."""
    return f"{minor / 100:.2f} {named['currency']}"
