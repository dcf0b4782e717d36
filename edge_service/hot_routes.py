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
from edge_service.admission import with_limits
from edge_service.bundle_answers import Question
from edge_service.edge import Edge, header
from edge_service.keyring import TAKEN
from edge_service.problems import Problem, Reply
from edge_service.rates import Headers
from edge_service.served import ServedRegion

V1 = "/v1/"
GET_BUNDLES = "/v1/{region}/bundles/{sku:path}"
POST_OFFERS = "/v1/{region}/offers"
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
        if refused is not None:
            await self._refuse(scope, send, refused)
            return
        known = origin = reply = None
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"if-none-match":
                known = value
        if scope["method"] == "GET":
            reply, route = self._bundles(scope, known), GET_BUNDLES
        elif scope["method"] == "POST":
            reply, route = await self._offers(scope, receive), POST_OFFERS
        if reply is None:
            await self._asgi(scope, receive, self.edge.admission.telling(scope, send))
            return
        status, headers, body = reply
        if origin is not None or TAKEN in scope:
            headers = self._more(scope, headers, origin)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.edge.metrics.told(scope, route, scope["method"], status, time.perf_counter() - started)

    async def _refuse(self, scope: Scope, send: Send, reply: Reply) -> None:
        """What Admission counts is no failed request: the canary must not take a crowd for a bad release."""
        status, headers, body = reply
        headers = self._more(scope, headers, header(scope, b"origin"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _bundles(self, scope: Scope, known: bytes | None) -> Reply | None:
        """The reply to GET bundles; None for any other question, and for one that something is wrong with."""
        path, query = scope["path"], scope["query_string"]
        place = path.find("/bundles/", len(V1))
        served = self.edge.served.get(path[len(V1) : place]) if place > 0 and path.startswith(V1) else None
        if served is None:
            return None
        key = (path, query) if query else path
        try:
            self.edge.keyring.check(scope, "read")
            return self.edge.bundles(served, key, lambda: self._question(served, path, place, query), known)
        except Exception:  # noqa: BLE001 - the framework's route meets it again, and reports it
            return None

    def _question(self, served: ServedRegion, path: str, place: int, text: bytes) -> Question | None:
        query = self._query(text)
        if query is None or path.endswith("/explain"):
            return None
        segment, limit, consents = query
        return Question(path[place + len("/bundles/") :], served.segment(segment, consents), limit)

    def _query(self, text: bytes) -> Query | None:
        """What a query string says; None where the framework has to look at it."""
        if text in self._queries:
            return self._queries[text]
        if len(self._queries) >= QUERIES_KEPT:
            self._queries = {b"": self._queries[b""]}
        self._queries[text] = found = read_query(text)
        return found

    async def _offers(self, scope: Scope, receive: Receive) -> Reply | None:
        """The reply to POST offers, whatever is wrong with it; None for any other question."""
        parts = scope["path"].split("/")
        if len(parts) != 4 or parts[1] != "v1" or parts[3] != "offers":
            return None
        served = self.edge.served.get(parts[2])
        if served is None:
            return None
        try:
            self.edge.keyring.check(scope, "read")
            return self.edge.offers(served, await self.edge.bodies.read(scope, receive))
        except Problem as problem:
            return problem.reply()
        except ClientDisconnect:
            return problems.broken_off().reply()
        except Exception as error:  # noqa: BLE001 - reported with all it says
            self.edge.metrics.failed(POST_OFFERS, error)
            return problems.unexpected().reply()

    def _more(self, scope: Scope, headers: Headers, origin: bytes | None) -> Headers:
        """The headers, with what limits say, and what browsers of another origin want to hear."""
        told = with_limits(scope, headers)
        return told if origin is None else self._with_cors(told, origin.decode("latin-1"))

    def _with_cors(self, headers: Headers, origin: str) -> Headers:
        told = MutableHeaders(raw=list(headers))
        told.update(self._cors.simple_headers)
        if not self._cors.allow_all_origins and self._cors.is_allowed_origin(origin=origin):
            self._cors.allow_explicit_origin(told, origin)
        return told.raw


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
