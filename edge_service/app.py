"""The edge's ASGI app: its routes, its errors as problems, its middleware, and the life of what it follows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from edge_service import bundle_routes, feed_routes, observe, openapi, operate_routes, problems
from edge_service.edge import Edge
from edge_service.live import Clock
from tandem.regions import Region
from tandem.settings import Settings


def create_app(settings: Settings, regions: Sequence[Region], *, clock: Clock = time.time) -> FastAPI:
    """The ASGI app for `regions`; its lifespan starts and stops what follows their Redis."""
    edge = Edge(settings, regions, clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for served in edge.served.values():
            served.start()
        yield
        for served in edge.served.values():
            await served.stop()

    app = FastAPI(
        title="Tandem edge",
        version=version("tandem-bundles"),
        description="Bundles priced against live stock and live prices. Money in minor units, times in RFC 3339, UTC.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.edge = edge
    for routes in (bundle_routes, feed_routes, operate_routes):
        app.include_router(routes.router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()],
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match", "X-Tandem-Key"],
        expose_headers=["ETag", "Retry-After"],
    )
    app.add_middleware(observe.Observed, metrics=edge.metrics, log=edge.log)
    return app
