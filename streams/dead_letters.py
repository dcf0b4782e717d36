"""Messages that nobody could read, put aside as they came with the reason, so that those behind them come through."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from confluent_kafka import KafkaError

from streams import broker, kept
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
        self._topic = broker.called(settings, DEAD_LETTERS)
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


class Letter(NamedTuple):
    """A record that was put aside."""

    topic: str
    partition: int
    offset: int
    """Where it lay."""
    reason: str
    key: bytes | None
    value: bytes | None


def held(settings: Settings) -> Iterator[Letter]:
    """Every letter that is there now, the oldest first. Raises Unavailable."""
    for record in kept.records(settings, DEAD_LETTERS):
        told = {name: text.decode(errors="replace") for name, text in record.headers() or ()}
        yield Letter(
            told["topic"], int(told["partition"]), int(told["offset"]), told["reason"], record.key(), record.value()
        )


def as_text(letters: Iterable[Letter]) -> str:
    """A line for each: where it lay, its key, why it was put aside."""
    return "\n".join(
        f"{each.topic}/{each.partition} {each.offset}  {(each.key or b'').decode(errors='replace')}  {each.reason}"
        for each in letters
    )
