"""Tells what the outbox holds, marks what was taken, and forgets what is old. Several at once share the work by lanes.

A message is told at least once: whoever ends between telling and marking tells it again, with the same event id,
sequence and order. Who listens passes over what he knows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import psycopg
from prometheus_client import CollectorRegistry, Counter, Gauge

from orders.database import connect
from tandem.errors import Unavailable

ROWS_AT_ONCE = 1_000
LANES_AT_ONCE = 8
"""Half of them: so two relays share what one alone would take in two turns."""
IDLE_SECONDS = 0.02
RETRY_SECONDS = 1.0
PRUNE_SECONDS = 60.0
PRUNED_AT_ONCE = 10_000

_LANES = """
SELECT lane FROM outbox_lanes, LATERAL (
    SELECT min(id) AS oldest FROM outbox
    WHERE outbox.lane = outbox_lanes.lane AND told_at IS NULL AND region <> ALL(%s)
) AS waiting
WHERE oldest IS NOT NULL ORDER BY oldest LIMIT %s FOR UPDATE OF outbox_lanes SKIP LOCKED
"""
_ROWS = """
SELECT id, event_id, topic, kind, region, key, value FROM outbox
WHERE lane = ANY(%s) AND told_at IS NULL AND region <> ALL(%s) ORDER BY id LIMIT %s
"""
_TOLD = "UPDATE outbox SET told_at = clock_timestamp() WHERE id = ANY(%s)"
_OLD = (
    """DELETE FROM outbox WHERE id IN
    (SELECT id FROM outbox WHERE told_at < now() - make_interval(days => %s) LIMIT %s)""",
    """DELETE FROM idempotency_keys WHERE (scope, key) IN
    (SELECT scope, key FROM idempotency_keys WHERE made_at < now() - make_interval(days => %s) LIMIT %s)""",
    """DELETE FROM used_quotes WHERE nonce IN
    (SELECT nonce FROM used_quotes WHERE expires_at < now() - make_interval(days => %s) LIMIT %s)""",
)


class Row(NamedTuple):
    """A message that waits in the outbox."""

    id: int
    event_id: UUID
    topic: str
    kind: str
    region: str
    key: str
    value: bytes


class Teller(Protocol):
    """Where messages go."""

    def tell(self, rows: Sequence[Row]) -> Collection[str]:
        """Tell them in order; back when all are taken. Gives regions that could not be told. Raises Unavailable."""
        ...


class Relay:
    """One relay, on one connection."""

    def __init__(self, dsn: str, teller: Teller, outbox_days: int, log: Any) -> None:
        self._dsn, self._teller, self._days, self._log = dsn, teller, outbox_days, log
        self._resting: dict[str, float] = {}
        """Regions that could not be told, and until when they are left alone."""
        self._pruned_at = time.monotonic()
        self.told = 0
        self.registry = CollectorRegistry()
        self._counted = Counter("tandem_relay_told", "Messages that were told", ["topic"], registry=self.registry)
        self._waits = Gauge("tandem_relay_waits", "1: database or Kafka is away", registry=self.registry)

    def run(self, stop: threading.Event) -> None:
        """Tell until `stop`; a database or a listener that is away is waited for, and said once."""
        away = ""
        while not stop.is_set():
            try:
                with closing(connect(self._dsn)) as connection:
                    self._waits.set(0)
                    self._connected(connection, stop)
            except (Unavailable, psycopg.OperationalError) as error:
                reason = str(error).strip().partition("\n")[0]
                if reason != away:
                    self._log.warning("relay_waits", reason=reason)
                away = reason
                self._waits.set(1)
                stop.wait(RETRY_SECONDS)

    def _connected(self, connection: psycopg.Connection[Any], stop: threading.Event) -> None:
        while not stop.is_set():
            if not self.turn(connection):
                self._prune_now_and_then(connection)
                stop.wait(IDLE_SECONDS)

    def turn(self, connection: psycopg.Connection[Any]) -> int:
        """Lock some lanes, tell the oldest rows in them, mark those; gives how many. Raises Unavailable."""
        resting = self._still_resting()
        with connection.transaction():
            lanes = [lane for (lane,) in connection.execute(_LANES, [resting, LANES_AT_ONCE])]
            if not lanes:
                return 0
            # A statement of its own: it sees what whoever held the lanes before has marked.
            found = connection.execute(_ROWS, [lanes, resting, ROWS_AT_ONCE]).fetchall()
            rows = [Row(*row) for row in found]
            failed = self._teller.tell(rows)
            told = [row for row in rows if row.region not in failed]
            connection.execute(_TOLD, [[row.id for row in told]])
        self._rest(failed)
        self._count(told)
        return len(told)

    def _count(self, told: Sequence[Row]) -> None:
        self.told += len(told)
        for row in told:
            self._counted.labels(row.topic).inc()

    def prune(self, connection: psycopg.Connection[Any]) -> int:
        """Forget what was told and what ran out so many days ago; gives how many rows."""
        gone = 0
        for statement in _OLD:
            while (count := self._delete(connection, statement)) == PRUNED_AT_ONCE:
                gone += count
            gone += count
        return gone

    def _delete(self, connection: psycopg.Connection[Any], statement: str) -> int:
        with connection.transaction():
            return connection.execute(statement.encode(), [self._days, PRUNED_AT_ONCE]).rowcount

    def _prune_now_and_then(self, connection: psycopg.Connection[Any]) -> None:
        if time.monotonic() - self._pruned_at < PRUNE_SECONDS:
            return
        self._pruned_at = time.monotonic()
        if gone := self.prune(connection):
            self._log.info("outbox_pruned", rows=gone)

    def _still_resting(self) -> list[str]:
        now = time.monotonic()
        self._resting = {region: until for region, until in self._resting.items() if until > now}
        return list(self._resting)

    def _rest(self, failed: Collection[str]) -> None:
        self._resting |= dict.fromkeys(failed, time.monotonic() + RETRY_SECONDS)
