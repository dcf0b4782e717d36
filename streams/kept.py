"""What a topic holds at this moment, read from its beginning to its end by somebody who wants to look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from streams import broker
from streams.topics import Topic
from tandem.errors import Unavailable
from tandem.settings import Settings


def records(settings: Settings, topic: Topic) -> Iterator[Any]:
    """Every record that is there now, partition after partition, the oldest first. Raises Unavailable."""
    name = broker.called(settings, topic)
    reader = broker.consumer(settings, f"looks-at-{topic.name}")
    try:
        for number in range(topic.partitions):
            yield from _of(reader, TopicPartition(name, number))
    except KafkaException as error:
        raise broker.unavailable(settings, error) from error
    finally:
        reader.close()


def _of(reader: Any, part: TopicPartition) -> Iterator[Any]:
    at, end = reader.get_watermark_offsets(part, broker.TIMEOUT_SECONDS)
    reader.assign([TopicPartition(part.topic, part.partition, at)])
    while at < end:
        record = reader.poll(broker.TIMEOUT_SECONDS)
        if record is None:
            raise Unavailable(
                f"{part.topic}: nothing came within {broker.TIMEOUT_SECONDS:g} s; look at the broker's log"
            )
        if record.error() is not None:
            raise KafkaException(record.error())
        yield record
        at = record.offset() + 1


def as_text(found: Iterable[Any], key: str | None = None) -> str:
    """A line for each record, those of `key` alone if it is given: where it lies, its key and its value."""
    wanted = None if key is None else key.encode()
    return "\n".join(
        f"{each.topic()}/{each.partition()} {each.offset()}  {_text(each.key())}  {_text(each.value())}"
        for each in found
        if wanted is None or each.key() == wanted
    )


def _text(told: bytes | None) -> str:
    return (told or b"").decode(errors="replace")
