"""Kafka's client with Tandem's settings: producers, consumers, and the topics as they were declared."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from streams.messages import Message, encode, headers
from streams.topics import HOUR_MS, TOPICS, Topic, topic_of
from tandem.errors import ConfigError, TandemError, Unavailable
from tandem.settings import Settings

TIMEOUT_SECONDS = 15.0
PAUSE_SECONDS = 0.05
SESSION_MS = 10_000
"""Who is not heard of for so long loses its partitions to others of its group."""

Delivered = Callable[[KafkaError | None, Any], None]


class KeptTooShort(TandemError):
    """A topic drops messages before a replay that may be needed is through with them."""


def options(settings: Settings, **more: object) -> dict[str, Any]:
    """Settings of the client: those given here, `more`, and what TANDEM_KAFKA_OPTIONS says, which wins.

    Raises ConfigError without brokers, or for an option that is no `key=value`.
    """
    if not settings.kafka:
        raise ConfigError("TANDEM_KAFKA is empty; name the brokers in it, such as 127.0.0.1:9092")
    told: dict[str, Any] = {
        "bootstrap.servers": settings.kafka,
        "logger": logging.getLogger("tandem.kafka"),
        "reconnect.backoff.max.ms": 1000,
        **more,
    }
    for option in filter(None, map(str.strip, settings.kafka_options.split(";"))):
        name, is_there, value = option.partition("=")
        if not is_there:
            raise ConfigError(f"TANDEM_KAFKA_OPTIONS: {option!r} is not key=value; separate them by ;")
        told[name.strip()] = value.strip()
    return told


def producer(settings: Settings, **more: object) -> Producer:
    """One that neither loses nor doubles nor reorders what it was given, as long as it lives."""
    own = {"enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4", **more}
    return Producer(options(settings, **own))


def consumer(settings: Settings, group: str, **more: object) -> Consumer:
    """One of a group whose places are kept elsewhere than in Kafka."""
    own = {
        "group.id": settings.topic_prefix + group,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "session.timeout.ms": SESSION_MS,
        "partition.assignment.strategy": "range",
        **more,
    }
    return Consumer(options(settings, **own))


def called(settings: Settings, topic: Topic) -> str:
    """What a topic is called on the broker."""
    return settings.topic_prefix + topic.name


def send(to: Producer, settings: Settings, message: Message, delivered: Delivered | None = None) -> None:
    """Put a message on its topic; waits while too many are on their way."""
    put(to, called(settings, topic_of(message)), message.key, encode(message), headers(message), delivered)


def put(
    to: Producer, topic: str, key: bytes, value: bytes, told: list[tuple[str, bytes]], delivered: Delivered | None
) -> None:
    """The same for a message that is bytes already, with its headers `told` and the topic as the broker calls it."""
    while True:
        try:
            to.produce(topic, value, key, headers=told, on_delivery=delivered)
        except BufferError:
            to.poll(PAUSE_SECONDS)
        else:
            return


def make_topics(settings: Settings, say: Callable[[str], object]) -> None:
    """Make what is missing of TOPICS, and give those that are there the settings that are declared."""
    admin = AdminClient(options(settings))
    there = _names(admin, settings)
    missing = [topic for topic in TOPICS.values() if called(settings, topic) not in there]
    wanted = [_new(settings, topic) for topic in missing]
    _done(admin.create_topics(wanted) if wanted else {}, allowed=KafkaError.TOPIC_ALREADY_EXISTS)
    kept = [topic for topic in TOPICS.values() if topic not in missing]
    _done(admin.incremental_alter_configs([_resource(settings, topic) for topic in kept]) if kept else {})
    _settle(admin, settings)
    for topic in TOPICS.values():
        days = "for ever" if topic.retention_hours < 0 else f"{topic.retention_hours / 24:g} days"
        made = "made" if topic in missing else "is there"
        say(f"{called(settings, topic)}: {made}, {topic.partitions} partitions, kept {days}")


def _settle(admin: AdminClient, settings: Settings) -> None:
    """Wait until the broker that is asked has heard from the controller what was made and set."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while not _settled(admin, settings):
        if time.monotonic() > end:
            raise Unavailable(f"Kafka at {settings.kafka} has no leader for new topics; look at its log")
        time.sleep(PAUSE_SECONDS)


def _settled(admin: AdminClient, settings: Settings) -> bool:
    wanted = {called(settings, topic): topic for topic in TOPICS.values()}
    there = admin.list_topics(timeout=TIMEOUT_SECONDS).topics
    led = all(
        name in there and there[name].partitions and all(part.leader >= 0 for part in there[name].partitions.values())
        for name in wanted
    )
    if not led:
        return False
    found = _configs(admin, wanted, allowed=KafkaError.UNKNOWN_TOPIC_OR_PART)  # to a broker that has not heard of it
    return found.keys() == wanted.keys() and all(
        wanted[topic].config.items() <= told.items() for topic, told in found.items()
    )


def _configs(admin: AdminClient, names: Iterable[str], allowed: int | None = None) -> dict[str, dict[str, str]]:
    """What holds for topics, by name."""
    asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    return {
        resource.name: {name: str(entry.value) for name, entry in found.items()}
        for resource, found in _done(admin.describe_configs(asked), allowed).items()
    }


def check_kept(settings: Settings, topics: Iterable[Topic]) -> dict[str, int]:
    """For how many ms each topic keeps what it has, by its name on the broker; -1: for ever.

    Raises KeptTooShort where one may drop what a replay of `rewind_hours` needs, TandemError where one is not there.
    """
    admin, wanted = AdminClient(options(settings)), list(topics)
    there = _names(admin, settings)
    for topic in wanted:
        if called(settings, topic) not in there:
            raise TandemError(f"topic {called(settings, topic)} is not there; `tandem streams topics` makes it")
    found = _configs(admin, [called(settings, topic) for topic in wanted])
    return {name: _kept_ms(settings, name, told) for name, told in found.items()}


def _kept_ms(settings: Settings, topic: str, told: Mapping[str, str]) -> int:
    if "delete" not in told["cleanup.policy"]:
        return -1
    kept, needed = int(told["retention.ms"]), settings.rewind_hours * HOUR_MS
    mend = "`tandem streams topics` sets what is declared"
    if 0 <= kept < needed:
        raise KeptTooShort(
            f"topic {topic} keeps messages for {kept / HOUR_MS:g} hours (retention.ms), but a replay may need "
            f"{settings.rewind_hours} (TANDEM_REWIND_HOURS); {mend}"
        )
    if int(told["retention.bytes"]) >= 0:
        raise KeptTooShort(f"topic {topic} drops messages by size (retention.bytes), however new they are; {mend}")
    return kept


def _resource(settings: Settings, topic: Topic) -> ConfigResource:
    told = {**topic.config, "retention.bytes": "-1"}.items()
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in told]
    return ConfigResource(ConfigResource.Type.TOPIC, called(settings, topic), incremental_configs=entries)


def _new(settings: Settings, topic: Topic) -> NewTopic:
    """One that is to be made: all copies but one have to have a message before its writer hears that it is there."""
    copies = settings.kafka_replication
    config = {**topic.config, "min.insync.replicas": str(max(1, copies - 1))}
    return NewTopic(called(settings, topic), topic.partitions, copies, config=config)


def _names(admin: AdminClient, settings: Settings) -> set[str]:
    try:
        return set(admin.list_topics(timeout=TIMEOUT_SECONDS).topics)
    except KafkaException as error:
        raise unavailable(settings, error) from error


def _done(futures: Mapping[Any, Any], allowed: int | None = None) -> dict[Any, Any]:
    """What became of each. Raises TandemError for the first that failed."""
    found = {}
    for what, future in futures.items():
        try:
            found[what] = future.result(TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != allowed:
                raise TandemError(f"Kafka refuses {what}: {error.args[0].str()}") from error
    return found


def unavailable(settings: Settings, error: KafkaException) -> Unavailable:
    """What a person is told where brokers cannot be reached."""
    return Unavailable(f"Kafka at {settings.kafka} can't serve ({error.args[0].str()}); start it, or mend TANDEM_KAFKA")
