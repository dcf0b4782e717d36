"""The orders' ASGI app: its routes, its errors as problems, what browsers may ask, and what is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import psycopg
from fastapi import APIRouter, FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_service import openapi, problems
from edge_service.replies import tell
from orders import openapi as document
from orders import routes
from orders.desk import AWAY, Desk
from orders.openapi import KEY
from orders.routes import Shared, needs
from tandem.regions import Region
from tandem.settings import Settings

operate = APIRouter(include_in_schema=False)


def create_app(settings: Settings, regions: Sequence[Region], *, clock: Callable[[], float] = time.time) -> Counted:
    """The ASGI app for `regions`; its lifespan opens and closes the connections to the database."""
    desk = Desk(settings, regions, clock)
    app = FastAPI(
        title="Tandem orders",
        version=version("tandem-bundles"),
        description="Checkout, returns and stock. Money in minor units, times in RFC 3339, UTC.",
        lifespan=lambda _: desk.running(),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.desk = desk
    app.include_router(routes.router)
    app.include_router(operate)
    problems.install(app)
    openapi.install(app, document.TYPES)
    for kind in AWAY:
        app.add_exception_handler(kind, _away)
    app.add_exception_handler(psycopg.DataError, _unkeepable)
    cors = CORSMiddleware(
        app,
        allow_origins=settings.origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", KEY, "X-Tandem-Key"],
        expose_headers=["Retry-After", "RateLimit", "RateLimit-Policy"],
    )
    return Counted(desk, cors)


class Counted:
    """ASGI middleware: refuses who may not come in, counts and times the others by route, without path or query."""

    def __init__(self, desk: Desk, app: ASGIApp) -> None:
        self.desk, self._app = desk, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, told = time.perf_counter(), self.desk.admission.telling(scope, send)
        status = 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await told(message)

        refused = self.desk.admission.refusal(scope, started)
        try:
            await (self._app(scope, receive, note) if refused is None else tell(refused, note))
        except Exception as error:
            self.desk.failed(_route(scope), error)
            raise
        finally:
            self.desk.metrics.requests.labels(_route(scope), status).inc()
            self.desk.metrics.seconds.labels(_route(scope)).observe(time.perf_counter() - started)


@operate.get("/healthz")
async def get_health() -> Response:
    """The process runs."""
    return routes.health(ready=True)


@operate.get("/readyz", response_class=Response)
async def get_ready(desk: Shared) -> Response:
    """The database answers; 503 where it does not."""
    try:
        async with desk.pool.connection(timeout=1) as session:
            await session.execute("SELECT 1 FROM stock LIMIT 1")
    except AWAY:
        return routes.health(ready=False)
    return routes.health(ready=True)


@operate.get("/metrics", dependencies=[needs("admin")], response_class=Response)
async def get_metrics(desk: Shared) -> Response:
    """Prometheus metrics of this process and of the outbox."""
    async with desk.pool.connection() as session:
        text = await desk.metrics.text(session)
    return Response(text, 200, {"Cache-Control": "no-store"}, "text/plain; version=0.0.4")


def _away(request: Request, error: Exception) -> Response:
    request.app.state.desk.log.warning("database_away", reason=str(error).strip())
    detail = "the orders' database can't be reached right now; send it again with the same Idempotency-Key"
    return problems.unavailable(detail).response()


def _unkeepable(_: Request, error: Exception) -> Response:
    """JSON has texts and numbers that PostgreSQL has not: a NUL, a number past 2^63."""
    return problems.wrong("body", str(error).partition("\n")[0]).response()


def _route(scope: Scope) -> str:
    """The route's template; `other` for an address that is none of ours."""
    return str(getattr(scope.get("route"), "path", "other"))
