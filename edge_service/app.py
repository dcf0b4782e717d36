"""The edge's ASGI app: its routes, its errors as problems, its middleware, and the life of what it follows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from edge_service import bundle_routes, docs_page, feed_routes, observe, openapi, operate_routes, problems
from edge_service.edge import Edge
from edge_service.hot_routes import HotRoutes
from edge_service.live import Clock
from tandem.regions import Region
from tandem.settings import Settings


def create_app(settings: Settings, regions: Sequence[Region], *, clock: Clock = time.time) -> HotRoutes:
    """The ASGI app for `regions`; its lifespan starts and stops what follows their Redis."""
    edge = Edge(settings, regions, clock)

    app = FastAPI(
        title="Tandem edge",
        version=version("tandem-bundles"),
        description="Bundles priced against live stock and live prices. Money in minor units, times in RFC 3339, UTC.",
        lifespan=lambda _: edge.running(),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.edge = edge
    for routes in (bundle_routes, feed_routes, operate_routes, docs_page):
        app.include_router(routes.router)
    problems.install(app)
    openapi.install(app)
    cors = CORSMiddleware(
        app,
        allow_origins=settings.origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match", "X-Tandem-Key", "traceparent", "tracestate"],
        expose_headers=["ETag", "Retry-After", "RateLimit", "RateLimit-Policy"],
    )
    return HotRoutes(edge, cors, observe.Observed(cors, edge.metrics))
