"""The topics: what lies on each, what keeps its order, and for how long it is kept."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streams.messages import (
    Activity,
    Exposure,
    Message,
    OrderPlaced,
    OrderReturned,
    PriceChanged,
    PricesUnchanged,
    StockChanged,
    StockUnchanged,
)

HOUR_MS = 3_600_000


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic, as it is made. Its name on the broker has the prefix of the settings before it."""

    name: str
    says: str
    key: str
    """What a key is made of: messages of one key lie in one partition, in order."""
    messages: tuple[type[Message], ...]
    """Empty: whatever was refused elsewhere, as it came."""
    partitions: int
    retention_hours: int
    """Messages are kept at least so long; -1: for ever."""
    cleanup: str = "delete"
    stamped_by_broker: bool = False
    """Its times are the broker's: a place in time is found whatever clocks its writers have."""

    @property
    def config(self) -> dict[str, str]:
        """Kafka's own settings of the topic."""
        kept = -1 if self.retention_hours < 0 else self.retention_hours * HOUR_MS
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(kept),
            "segment.ms": str(SEGMENT_HOURS * HOUR_MS),
            "message.timestamp.type": "LogAppendTime" if self.stamped_by_broker else "CreateTime",
        }


SEGMENT_HOURS = 6
"""Kafka drops whole segments: what is kept is up to so much more."""

INVENTORY = Topic(
    name="inventory",
    says="Stock of products",
    key="region:sku",
    messages=(StockChanged, StockUnchanged),
    partitions=6,
    retention_hours=7 * 24,
    stamped_by_broker=True,
)
PRICES = Topic(
    name="prices",
    says="Prices of products",
    key="region:sku",
    messages=(PriceChanged, PricesUnchanged),
    partitions=6,
    retention_hours=7 * 24,
    stamped_by_broker=True,
)
ACTIVITY = Topic(
    name="activity",
    says="What shoppers do",
    key="session id, else event id",
    messages=(Activity,),
    partitions=6,
    retention_hours=7 * 24,
)
EXPOSURES = Topic(
    name="exposures",
    says="Bundles that shoppers were shown",
    key="session id, else event id",
    messages=(Exposure,),
    partitions=6,
    retention_hours=7 * 24,
)
ORDERS = Topic(
    name="orders",
    says="Orders and what came back of them",
    key="order id",
    messages=(OrderPlaced, OrderReturned),
    partitions=6,
    retention_hours=30 * 24,
)
DEAD_LETTERS = Topic(
    name="dead-letters",
    says="What a consumer could not read: value and key as they came, headers topic, partition, offset and reason",
    key="as it came",
    messages=(),
    partitions=1,
    retention_hours=30 * 24,
)
TOPICS: Mapping[str, Topic] = {
    topic.name: topic for topic in (INVENTORY, PRICES, ACTIVITY, EXPOSURES, ORDERS, DEAD_LETTERS)
}


def topic_of(message: Message) -> Topic:
    """Where a message belongs."""
    return next(topic for topic in TOPICS.values() if type(message) in topic.messages)
