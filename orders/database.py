"""Connections to the orders' PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool

from tandem.errors import Unavailable
from tandem.settings import Settings

Session = AsyncConnection[tuple[Any, ...]]
"""A connection inside a transaction."""
WAIT_SECONDS = 5.0
"""For a free connection; then the request is answered 503."""
LIMITS = {
    "lock_timeout": "5s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
    "timezone": "UTC",
}
"""A transaction that hangs holds up nobody for longer."""
PATIENT = {**LIMITS, "statement_timeout": "10min", "idle_in_transaction_session_timeout": "2min"}
"""For what nobody waits for: first stock of many products, a relay while Kafka is slow."""
ALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "connect_timeout": 5}
"""Seconds, and how often: a machine that vanished is noticed."""


def options(limits: Mapping[str, str]) -> str:
    """Limits as libpq takes them."""
    return " ".join(f"-c {name}={value}" for name, value in limits.items())


def pool(settings: Settings) -> AsyncConnectionPool[Session]:
    """A pool that is not open yet; a connection that broke meanwhile is replaced before it is given out."""
    return AsyncConnectionPool(
        settings.orders_dsn,
        kwargs={"options": options(LIMITS), **ALIVE},
        min_size=1,
        max_size=settings.orders_connections,
        timeout=WAIT_SECONDS,
        reconnect_timeout=WAIT_SECONDS,
        check=AsyncConnectionPool.check_connection,
        open=False,
    )


def connect(dsn: str) -> Connection[tuple[Any, ...]]:
    """One connection for work that may take long. Raises Unavailable where no server answers."""
    try:
        return psycopg.connect(dsn, options=options(PATIENT), **ALIVE)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        raise Unavailable(f"the orders' database does not answer: {str(error).strip()}") from error
