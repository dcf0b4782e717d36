"""The hot routes, answered before any framework: GET bundles and POST offers. All else, and all odd, is passed on.

What they answer is made by the same methods of Edge that the framework's routes call; here is only the way there.
"""

from __future__ import annotations

import time
from urllib.parse import parse_qsl

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_service import problems, questions
from edge_service.admission import limits_of
from edge_service.bundle_answers import Question
from edge_service.edge import Edge, header
from edge_service.keyring import TAKEN
from edge_service.problems import Problem
from edge_service.replies import Reply, lines, tell
from edge_service.served import ServedRegion

V1 = "/v1/"
GET_BUNDLES = "/v1/{region}/bundles/{sku:path}"
POST_OFFERS = "/v1/{region}/offers"
BUNDLES, EXPLAIN, OFFERS = "/bundles/", "/explain", "/offers"
QUERIES_KEPT = 4_096
"""Different query strings whose meaning is kept."""

Query = tuple[str, int, list[str]]
"""Segment, limit, consents."""


class HotRoutes:
    """The edge as an ASGI app. `asgi` is the framework's app with its middleware, `cors` what it says to browsers."""

    def __init__(self, edge: Edge, cors: CORSMiddleware, asgi: ASGIApp) -> None:
        self.edge, self._cors, self._asgi = edge, cors, asgi
        self._queries: dict[bytes, Query | None] = {b"": ("*", questions.DEFAULT_LIMIT, [])}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._asgi(scope, receive, send)
            return
        started = time.perf_counter()
        refused = self.edge.admission.refusal(scope, started)
        if refused is None:
            reply = await self._hot(scope, receive, started)
        else:
            reply = self._with_more(scope, refused)
        if reply is None:
            await self._asgi(scope, receive, self.edge.admission.telling(scope, send))
            return
        await tell(reply, send)

    def at_once(self, scope: Scope, body: bytes) -> Reply | None:
        """The reply to a hot question that is here as a whole; None where it has to be asked by ASGI."""
        path = scope["path"]
        if scope["method"] == "GET":
            route = GET_BUNDLES if BUNDLES in path and not path.endswith(EXPLAIN) else ""
        else:
            route = POST_OFFERS if path.endswith(OFFERS) else ""
        if not route:
            return None
        started = self.edge.pulse.turn()
        refused = self.edge.admission.refusal(scope, started)
        if refused is not None:
            return self._with_more(scope, refused)
        reply = self._bundles(scope) if route is GET_BUNDLES else self._offers(scope, body)
        return None if reply is None else self._told(scope, reply, route, started)

    async def _hot(self, scope: Scope, receive: Receive, started: float) -> Reply | None:
        """As `at_once`, for a question that is let in and whose body may be on its way."""
        if scope["method"] == "GET":
            reply, route = self._bundles(scope), GET_BUNDLES
        elif scope["method"] == "POST":
            reply, route = await self._offers_when_read(scope, receive), POST_OFFERS
        else:
            return None
        return None if reply is None else self._told(scope, reply, route, started)

    def _told(self, scope: Scope, reply: Reply, route: str, started: float) -> Reply:
        """The reply with all its headers, counted and timed."""
        self.edge.metrics.told(scope, route, scope["method"], reply[0], time.perf_counter() - started)
        for name, _ in scope["headers"]:
            if name == b"origin":
                return self._with_more(scope, reply)
        return reply if TAKEN not in scope else self._with_more(scope, reply)

    def _with_more(self, scope: Scope, reply: Reply) -> Reply:
        """The reply, with what limits say in its headers, and what browsers of another origin want to hear."""
        status, told, body = reply
        origin = header(scope, b"origin")
        more = lines(limits_of(scope)) + (b"" if origin is None else self._cors_lines(origin))
        return status, told + more, body

    def _cors_lines(self, origin: bytes) -> bytes:
        told = MutableHeaders(self._cors.simple_headers)
        if not self._cors.allow_all_origins and self._cors.is_allowed_origin(origin=origin.decode("latin-1")):
            self._cors.allow_explicit_origin(told, origin.decode("latin-1"))
        return lines(told.raw)

    def _bundles(self, scope: Scope) -> Reply | None:
        """The reply to GET bundles; None for any other question, and for one that something is wrong with."""
        path, query = scope["path"], scope["query_string"]
        place = path.find(BUNDLES, len(V1))
        served = self.edge.served.get(path[len(V1) : place]) if place > 0 and path.startswith(V1) else None
        if served is None:
            return None
        key = (path, query) if query else path
        try:
            self.edge.keyring.check(scope, "read")
            known = header(scope, b"if-none-match")
            return self.edge.bundles(served, key, lambda: self._question(served, path, place, query), known)
        except Exception:  # noqa: BLE001 - the framework's route meets it again, and reports it
            return None

    def _question(self, served: ServedRegion, path: str, place: int, text: bytes) -> Question | None:
        query = self._query(text)
        if query is None or path.endswith(EXPLAIN):
            return None
        segment, limit, consents = query
        return Question(path[place + len(BUNDLES) :], served.segment(segment, consents), limit)

    def _query(self, text: bytes) -> Query | None:
        """What a query string says; None where the framework has to look at it."""
        if text in self._queries:
            return self._queries[text]
        if len(self._queries) >= QUERIES_KEPT:
            self._queries = {b"": self._queries[b""]}
        self._queries[text] = found = read_query(text)
        return found

    def _offers(self, scope: Scope, body: bytes) -> Reply | None:
        """The reply to POST offers, whatever is wrong with it; None for any other question."""
        served = self._asked_for_offers(scope)
        if served is None:
            return None
        try:
            self.edge.keyring.check(scope, "read")
            return self.edge.offers(served, body)
        except Exception as error:  # noqa: BLE001 - reported with all it says
            return self._failed(error)

    async def _offers_when_read(self, scope: Scope, receive: Receive) -> Reply | None:
        """As `_offers`; the body of one who may not ask is not read."""
        served = self._asked_for_offers(scope)
        if served is None:
            return None
        try:
            self.edge.keyring.check(scope, "read")
            return self.edge.offers(served, await self.edge.bodies.read(scope, receive))
        except Exception as error:  # noqa: BLE001
            return self._failed(error)

    def _asked_for_offers(self, scope: Scope) -> ServedRegion | None:
        parts = scope["path"].split("/")
        return self.edge.served.get(parts[2]) if len(parts) == 4 and parts[1] == "v1" and parts[3] == "offers" else None

    def _failed(self, error: Exception) -> Reply:
        if isinstance(error, Problem):
            return error.reply()
        if isinstance(error, ClientDisconnect):
            return problems.broken_off().reply()
        self.edge.metrics.failed(POST_OFFERS, error)
        return problems.unexpected().reply()


def read_query(text: bytes) -> Query | None:
    if len(text) > 1_000:
        return None
    pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True)
    given = dict(pairs)
    if len(given) != len(pairs) or not given.keys() <= {"segment", "limit", "consents"}:
        return None
    segment, limit = given.get("segment", "*"), given.get("limit", str(questions.DEFAULT_LIMIT))
    if not 1 <= len(segment) <= 64 or not (limit.isascii() and limit.isdigit() and len(limit) < 3):
        return None
    if not 1 <= int(limit) <= questions.MAX_LIMIT:
        return None
    return segment, int(limit), questions.split([given["consents"]] if "consents" in given else [])
