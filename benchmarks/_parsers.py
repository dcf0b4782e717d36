"""All of the edge that reads what a stranger sent, as functions of bytes that may refuse and never fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from edge_service import hot_routes, questions
from edge_service.problems import Problem
from tandem.quote import QuoteFault, Signer

NOW = 1_767_614_400.0
SIGNER = Signer.from_text("k1:0123456789abcdef0123")
LONGEST_SECONDS = 3.0


class TooSlow(Exception):
    """One input took more than LONGEST_SECONDS of a core."""


def cart(data: bytes) -> None:
    """The body of POST offers."""
    question = questions.offers_question(data)
    if not all(1 <= line.quantity <= 1_000_000 and 1 <= len(line.sku) <= 128 for line in question.cart):
        raise AssertionError(f"a cart was let in that must not be: {question.cart}")


def deltas(data: bytes) -> None:
    """The body of POST deltas."""
    for entry in questions.deltas(data, NOW):
        if entry.at is not None and entry.at.timestamp() > NOW + questions.FUTURE_SECONDS:
            raise AssertionError(f"a time ahead was let in: {entry}")


def events(data: bytes) -> None:
    """The body of POST events."""
    questions.events(data, NOW)


def quote(data: bytes) -> None:
    """The body of POST quotes/verify, and the token in it. Nobody can make one that is honoured."""
    token = questions.decode(data, questions.VerifyQuestion).token
    SIGNER.verify(token, region="north", now=NOW)
    raise AssertionError(f"a made-up quote was honoured: {token}")


def token(data: bytes) -> None:
    """A token by itself."""
    SIGNER.verify(data.decode("latin-1"), region="north", now=NOW)
    raise AssertionError(f"a made-up quote was honoured: {data!r}")


def query(data: bytes) -> None:
    """The query of GET bundles."""
    hot_routes.read_query(data)


PARSERS: dict[str, Callable[[bytes], None]] = {
    "cart": cart, "deltas": deltas, "events": events, "quote": quote, "token": token, "query": query
}  # fmt: skip
SEEDS: dict[str, list[bytes]] = {
    "cart": [b'{"cart":[{"sku":"a","quantity":2}],"skus":["b"],"limit":6,"exclude":["c"],"consents":["d"]}'],
    "deltas": [b'{"sku":"a","stock":1,"sequence":7,"at":"2026-01-05T12:00:00Z"}\n{"at":"2026-01-05T12:00:00Z"}\n'],
    "events": [b'[{"kind":"click","event_id":"e","at":"2026-01-05T12:00:00Z","release":"r","bundle_id":"b"}]'],
    "quote": [b'{"token":"WyJrMSIsIm4iLCJzIiwiciIsImIiLCJVU0QiLFtdLDEsMSwibiJd.c2ln","once":true}'],
    "token": [b"WyJrMSIsIm4iLCJzIiwiciIsImIiLCJVU0QiLFtdLDEsMSwibiJd.c2ln"],
    "query": [b"segment=families&limit=6&consents=a,b"],
}


def fed(name: str, data: bytes) -> None:
    """Give `data` to a parser. Raises what is no refusal, and TooSlow."""
    started = time.thread_time()
    with suppress(Problem, QuoteFault):
        PARSERS[name](data)
    if time.thread_time() - started > LONGEST_SECONDS:
        raise TooSlow(f"{name}: {data[:200]!r}")
