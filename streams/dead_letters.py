"""Messages that nobody could read, put aside as they came with the reason, so that those behind them come through."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError

from streams import broker
from streams.topics import DEAD_LETTERS
from tandem.errors import Unavailable
from tandem.settings import Settings

SETTLE_SECONDS = 30.0
LONGEST_VALUE = 900_000
"""Bytes; a longer value stays where it is, and the reason says so: headers need room too."""


class DeadLetters:
    """Sends to the topic `dead-letters`. A letter may come twice, then with the same topic, partition and offset."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topic_prefix + DEAD_LETTERS.name
        self._producer: Any = None
        self._failed: KafkaError | None = None

    def send(self, record: Any, reason: str) -> None:
        """Put a record aside; it is safe there after `settle`."""
        self._producer = self._producer or broker.producer(self._settings)
        value: bytes | None = record.value()
        if (length := len(value or b"")) > LONGEST_VALUE:
            value, reason = None, f"{reason} (its value of {length} bytes is left where it is)"
        beside = {
            "topic": record.topic(),
            "partition": str(record.partition()),
            "offset": str(record.offset()),
            "reason": reason,
        }
        told = [(name, text.encode()) for name, text in beside.items()]
        self._producer.produce(self._topic, value, record.key(), headers=told, on_delivery=self._delivered)

    def settle(self) -> None:
        """Wait until all are on the topic. Raises Unavailable where they are not."""
        end = time.monotonic() + SETTLE_SECONDS
        while self._producer is not None and len(self._producer):
            if time.monotonic() > end:
                raise Unavailable(
                    f"Kafka at {self._settings.kafka} takes no dead letters; start it, or look at its log"
                )
            self._producer.flush(1.0)
        if (failed := self._failed) is not None:
            self._failed = None
            raise Unavailable(f"{self._topic}: a dead letter was not taken: {failed.str()}")

    def _delivered(self, error: KafkaError | None, _: Any) -> None:
        self._failed = error or self._failed
