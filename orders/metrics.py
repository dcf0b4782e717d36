"""What an operator sees of the orders' service: Prometheus metrics of this process, and of the outbox."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orders.database import Session

BOUNDS_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
_WAITING = """
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(made_at)), 0) FROM outbox WHERE told_at IS NULL
"""


class Metrics:
    """The process's own registry: with several workers, each tells of itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tandem_orders_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "tandem_orders_seconds", "Time to answer", ["route"], buckets=BOUNDS_SECONDS, registry=self.registry
        )
        self._waiting = Gauge("tandem_outbox_waiting", "Messages not told yet", registry=self.registry)
        self._oldest = Gauge("tandem_outbox_oldest_seconds", "Age of the oldest of them", registry=self.registry)

    async def text(self, session: Session) -> bytes:
        """All of it, with the outbox as it is now."""
        found = await (await session.execute(_WAITING)).fetchone()
        if found is not None:
            self._waiting.set(found[0])
            self._oldest.set(float(found[1]))
        return generate_latest(self.registry)
