"""What a shopper wants to buy: quotes that hold, as the lines of an order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from edge_service.problems import FieldError, Problem, wrong
from tandem.quote import Fault, Quote, QuoteFault, Signer

MENDS: dict[Fault, str] = {
    "malformed": "it is not a quote as the edge signs them",
    "unknown_key": "its key is not known here; ask the edge for a new offer",
    "altered": "it was altered",
    "expired": "it has expired; ask the edge for a new offer",
    "wrong_region": "it is another region's",
    "used": "an order has used it already; ask the edge for a new offer",
}


class Line(NamedTuple):
    """One component of one bundle."""

    sku: str
    quantity: int
    offer_total: int
    """All units, minor units: what the quote allocates to it."""
    bundle_id: str
    quote_id: str
    release: str


class Basket(NamedTuple):
    lines: Sequence[Line]
    currency: str
    total: int
    """Minor units."""
    once: Sequence[tuple[str, int]]
    """Nonce and expiry (seconds since 1970) of each quote that can be used only once, in order."""

    @property
    def units(self) -> Counter[str]:
        """Units of each product."""
        needed: Counter[str] = Counter()
        for line in self.lines:
            needed[line.sku] += line.quantity
        return needed


def of(tokens: Sequence[str], signer: Signer, region: str, now: float) -> Basket:
    """The basket of some quotes. Raises a problem that names the first that may not be honoured.

    A price is never taken from anywhere else. A quote without a nonce is the same for all who ask, and holds until it
    expires, however often.
    """
    quotes = [_verified(number, token, signer, region, now) for number, token in enumerate(tokens)]
    nonces = [quote.nonce for quote in quotes if quote.nonce]
    if twice := [number for number, quote in enumerate(quotes) if quote.nonce and nonces.count(quote.nonce) > 1]:
        raise wrong(f"quotes[{twice[1]}]", f"is the same as quotes[{twice[0]}], which can be used once")
    if len({quote.currency for quote in quotes}) > 1:
        raise wrong("quotes", "are in several currencies; an order has one")
    lines = [line for quote, token in zip(quotes, tokens, strict=True) for line in _lines(quote, token)]
    once = sorted((quote.nonce, quote.expires_at) for quote in quotes if quote.nonce)
    return Basket(lines, quotes[0].currency, sum(quote.offer_total for quote in quotes), once)


def refused(number: int, fault: Fault) -> Problem:
    """The problem of a quote that may not be honoured."""
    field = f"quotes[{number}]"
    return Problem(409, f"{field}: {MENDS[fault]}", FieldError(field, fault), kind=f"quote-{fault.replace('_', '-')}")


def _verified(number: int, token: str, signer: Signer, region: str, now: float) -> Quote:
    try:
        return signer.verify(token, region=region, now=now)
    except QuoteFault as error:
        raise refused(number, error.fault) from error


def _lines(quote: Quote, token: str) -> list[Line]:
    quote_id = quote.nonce or hashlib.sha256(token.encode()).hexdigest()[:16]
    return [
        Line(part.sku, part.quantity, part.offer_price, quote.bundle_id, quote_id, quote.release)
        for part in quote.components
    ]
