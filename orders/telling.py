"""Where the relay's messages go: to Kafka, or where there is none, to the webhook of each region's edge."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from orders.relay import Row
from streams import broker
from streams.messages import MESSAGES
from streams.topics import INVENTORY
from tandem.errors import Unavailable
from tandem.regions import Region
from tandem.settings import Settings

PATIENCE_SECONDS = 5.0
DELIVERY_MS = 10_000
"""What the broker may take for a message, with all that is tried again."""
EVENT_ID = "id"
"""The header by which who listens knows a message again."""


class KafkaTeller:
    """To Kafka, by an idempotent producer: in order, and each once as long as this producer lives."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Producer | None = None

    def tell(self, rows: Sequence[Row]) -> Collection[str]:
        """All of them, or Unavailable."""
        faults: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                faults.append(error)

        producer = self._open()
        for row in rows:
            self._produce(producer, row, delivered)
        left = producer.flush(2 * DELIVERY_MS / 1000)
        if faults or left:
            self._forget()
            reason = faults[0].str() if faults else f"{left} messages were not acknowledged"
            raise Unavailable(f"Kafka at {self._settings.kafka}: {reason}")
        return ()

    def _open(self) -> Producer:
        if self._producer is None:
            self._producer = broker.producer(self._settings, **{"delivery.timeout.ms": DELIVERY_MS})
        return self._producer

    def _forget(self) -> None:
        """What still waits in this producer must never come out after what is told anew."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def _produce(self, producer: Producer, row: Row, delivered: Any) -> None:
        headers = [
            ("type", row.kind.encode()),
            ("version", b"%d" % MESSAGES[row.kind].version),
            (EVENT_ID, str(row.event_id).encode()),
        ]
        topic = self._settings.topic_prefix + row.topic
        broker.put(producer, topic, row.key.encode(), row.value, headers, delivered)


class WebhookTeller:
    """To `POST /v1/{region}/deltas` of the region's edge: stock alone; orders stay in PostgreSQL."""

    def __init__(self, settings: Settings, regions: Sequence[Region], log: Any) -> None:
        self._edges: Mapping[str, str] = {
            region.name: (region.edge_url or settings.local_edge).rstrip("/") for region in regions
        }
        self._key = settings.feed_key
        self._log = log
        self._away: set[str] = set()

    def tell(self, rows: Sequence[Row]) -> Collection[str]:
        """The regions whose edge did not take it."""
        by_region: dict[str, list[Row]] = {}
        for row in rows:
            if row.topic == INVENTORY.name:
                by_region.setdefault(row.region, []).append(row)
        failed = {region for region, told in by_region.items() if not self._told(region, told)}
        self._away = (self._away - by_region.keys()) | failed
        return failed

    def _told(self, region: str, rows: Sequence[Row]) -> bool:
        try:
            self._post(region, b"".join(map(_delta, rows)))
        except Unavailable as error:
            if region not in self._away:
                self._log.warning("region_waits", region=region, reason=str(error))
            return False
        return True

    def _post(self, region: str, body: bytes) -> None:
        if region not in self._edges:
            raise Unavailable(f"regions.toml names no region {region!r}")
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/x-ndjson"}
        url = f"{self._edges[region]}/v1/{region}/deltas"
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - from the configuration
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS):  # noqa: S310
                return
        except urllib.error.HTTPError as error:
            with error:
                raise Unavailable(f"{url}: {error.code}: {_detail(error.read())}") from error
        except OSError as error:
            raise Unavailable(f"{url}: {error}") from error


def _delta(row: Row) -> bytes:
    """A line of the webhook."""
    told = json.loads(row.value)
    line = {name: told[name] for name in ("sku", "stock", "sequence", "at")}
    return json.dumps(line).encode() + b"\n"


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
