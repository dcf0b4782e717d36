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
from edge_service.bundle_answers import Question
from edge_service.edge import Edge, Reply
from edge_service.problems import Problem
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
        if scope["type"] == "http":
            started = time.perf_counter()
            known = origin = reply = None
            for name, value in scope["headers"]:
                if name == b"origin":
                    origin = value
                elif name == b"if-none-match":
                    known = value
            if scope["method"] == "GET":
                reply, route = self._bundles(scope["path"], scope["query_string"], known), GET_BUNDLES
            elif scope["method"] == "POST":
                reply, route = await self._offers(scope, receive), POST_OFFERS
            if reply is not None:
                status, headers, body = reply
                if origin is not None:
                    headers = self._with_cors(headers, origin.decode("latin-1"))
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                self.edge.metrics.told(route, scope["method"], status, time.perf_counter() - started)
                return
        await self._asgi(scope, receive, send)

    def _bundles(self, path: str, query: bytes, known: bytes | None) -> Reply | None:
        """The reply to GET bundles; None for any other question, and for one that something is wrong with."""
        place = path.find("/bundles/", len(V1))
        served = self.edge.served.get(path[len(V1) : place]) if place > 0 and path.startswith(V1) else None
        if served is None:
            return None
        key = (path, query) if query else path
        try:
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
        self._queries[text] = found = _read(text)
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
            return self.edge.offers(served, await questions.read_body(scope, receive))
        except Problem as problem:
            made = problem.response()
        except ClientDisconnect:
            made = problems.broken_off().response()
        except Exception as error:  # noqa: BLE001 - reported with all it says
            self.edge.metrics.failed(POST_OFFERS, error)
            made = problems.unexpected().response()
        return made.status_code, made.raw_headers, bytes(made.body)

    def _with_cors(self, headers: list[tuple[bytes, bytes]], origin: str) -> list[tuple[bytes, bytes]]:
        told = MutableHeaders(raw=list(headers))
        told.update(self._cors.simple_headers)
        if not self._cors.allow_all_origins and self._cors.is_allowed_origin(origin=origin):
            self._cors.allow_explicit_origin(told, origin)
        return told.raw


def _read(text: bytes) -> Query | None:
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
