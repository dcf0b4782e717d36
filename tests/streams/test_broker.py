"""Topics are made as declared, and one that forgets too early is refused before it is needed."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from streams import broker, kept
from streams.broker import KeptTooShort
from streams.messages import StockChanged
from streams.topics import INVENTORY, PRICES
from tandem.errors import ConfigError, TandemError, Unavailable
from tandem.settings import Settings

pytestmark = pytest.mark.servers


def alter(kafka: Settings, **told: str) -> None:
    """Set what a topic has, and wait until the broker says so."""
    wanted = {name.replace("_", "."): value for name, value in told.items()}
    entries = [ConfigEntry(*each, incremental_operation=AlterConfigOpType.SET) for each in wanted.items()]
    name = f"{kafka.topic_prefix}inventory"
    admin = AdminClient({"bootstrap.servers": kafka.kafka})
    resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(10)
    while not wanted.items() <= broker._configs(admin, [name])[name].items():
        time.sleep(0.05)


def test_topics_as_declared_keep_long_enough(kafka: Settings) -> None:
    broker.check_kept(kafka, [INVENTORY, PRICES])


def test_a_topic_that_forgets_before_a_replay_is_through_is_refused_and_mended(kafka: Settings) -> None:
    alter(kafka, retention_ms="3600000")
    said = r"inventory keeps messages for 1 hours \(retention.ms\), but a replay may need 72 \(TANDEM_REWIND_HOURS\)"
    with pytest.raises(KeptTooShort, match=said):
        broker.check_kept(kafka, [INVENTORY, PRICES])
    broker.make_topics(kafka, print)
    broker.check_kept(kafka, [INVENTORY, PRICES])


def test_a_topic_that_forgets_by_size_is_refused_and_mended(kafka: Settings) -> None:
    alter(kafka, retention_bytes="1000000")
    with pytest.raises(KeptTooShort, match=r"inventory drops messages by size \(retention.bytes\)"):
        broker.check_kept(kafka, [INVENTORY])
    broker.make_topics(kafka, print)
    broker.check_kept(kafka, [INVENTORY])


def test_what_is_compacted_and_never_deleted_may_keep_as_it_likes(kafka: Settings) -> None:
    alter(kafka, retention_ms="3600000", cleanup_policy="compact")
    broker.check_kept(kafka, [INVENTORY])


def test_a_topic_that_is_not_there_is_named_with_the_command_that_makes_it(kafka: Settings) -> None:
    other = msgspec.structs.replace(kafka, topic_prefix="nobodys-")
    with pytest.raises(TandemError, match="topic nobodys-inventory is not there; `tandem streams topics` makes it"):
        broker.check_kept(other, [INVENTORY])


def test_what_a_topic_holds_is_shown_by_key(kafka: Settings) -> None:
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    producer = broker.producer(kafka)
    for number, sku in enumerate(("tea", "cup", "tea"), 1):
        broker.send(producer, kafka, StockChanged(region="shown", sku=sku, stock=number, sequence=number, at=at))
    assert producer.flush(10) == 0
    lines = kept.as_text(kept.records(kafka, INVENTORY), "shown:tea").splitlines()
    assert ['"stock":1' in lines[0], '"stock":3' in lines[1], len(lines)] == [True, True, 2]
    assert all("  shown:tea  {" in line for line in lines)


def test_brokers_that_are_away_are_unavailable_and_named() -> None:
    away = Settings(kafka="127.0.0.1:1", kafka_options="socket.timeout.ms=500")
    broker.TIMEOUT_SECONDS, before = 1.0, broker.TIMEOUT_SECONDS
    try:
        with pytest.raises(Unavailable, match=r"Kafka at 127\.0\.0\.1:1 can't serve"):
            broker.make_topics(away, print)
    finally:
        broker.TIMEOUT_SECONDS = before


def test_without_brokers_or_with_a_wrong_option_the_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="TANDEM_KAFKA is empty"):
        broker.options(Settings())
    with pytest.raises(ConfigError, match="TANDEM_KAFKA_OPTIONS: 'acks' is not key=value"):
        broker.options(Settings(kafka="x:1", kafka_options="linger.ms=5; acks"))
    assert broker.options(Settings(kafka="x:1", kafka_options="linger.ms=5;acks=1"))["linger.ms"] == "5"
