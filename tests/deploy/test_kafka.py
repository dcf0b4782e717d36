"""The broker of this machine: fetched once and checked, started, stopped and killed for real."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import msgspec
import pytest

from deploy import kafka, processes, services
from streams import broker
from tandem.errors import ConfigError
from tandem.settings import Settings
from tests.conftest import RunningKafka


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, kafka_jars=tmp_path / "jars")


def test_without_its_jars_the_broker_says_how_to_get_them(settings: Settings) -> None:
    (server,) = kafka.brokers(msgspec.structs.replace(settings, kafka=f"127.0.0.1:{services.free_ports(1)[0]}"))
    with pytest.raises(kafka.NotFetched, match="`make kafka` fetches them"):
        server.start()


@pytest.mark.servers
def test_a_jar_that_was_altered_or_is_missing_is_named(running_kafka: RunningKafka, tmp_path: Path) -> None:
    shutil.copytree(running_kafka.settings.kafka_jars.expanduser(), tmp_path / "jars")
    assert kafka._wrong(tmp_path / "jars") is None
    first, second = sorted((tmp_path / "jars").glob("*.jar"))[:2]
    second.unlink()
    assert kafka._wrong(tmp_path / "jars") == f"{second.name} is missing"
    first.write_bytes(b"something else")
    assert str(kafka._wrong(tmp_path / "jars")).startswith(f"{first.name} has the SHA-256 ")


@pytest.mark.parametrize("told", ["localhost", "localhost:", "127.0.0.1:9092;127.0.0.1:9093", ":9092"])
def test_an_address_that_is_none_is_named(settings: Settings, told: str) -> None:
    with pytest.raises(ConfigError, match="TANDEM_KAFKA must be host:port, separated by commas"):
        kafka.brokers(msgspec.structs.replace(settings, kafka=told))


def test_several_addresses_are_several_nodes_and_one_elsewhere_is_not_ours(settings: Settings) -> None:
    several = msgspec.structs.replace(settings, kafka="127.0.0.1:9092,127.0.0.1:9093, localhost:9094")
    assert [(server.name, server.port) for server in kafka.brokers(several)] == [
        ("kafka-1", 9092),
        ("kafka-2", 9093),
        ("kafka-3", 9094),
    ]
    assert kafka.brokers(msgspec.structs.replace(settings, kafka="kafka.example:9092")) == []


def test_the_controller_keeps_its_port(settings: Settings) -> None:
    assert kafka._ports(settings.home / "controllers.json", 3) == kafka._ports(settings.home / "controllers.json", 3)


@pytest.mark.servers
def test_a_killed_broker_comes_back_with_its_topics(running_kafka: RunningKafka, kafka: Settings) -> None:
    server = running_kafka.server
    assert server.healthy()
    assert server.pid is not None
    os.killpg(server.pid, signal.SIGKILL)
    assert not server.healthy()
    server.start()
    lines: list[str] = []
    broker.make_topics(kafka, lines.append)
    assert all(": is there, " in line for line in lines)
    assert len(lines) == 6


@pytest.mark.servers
def test_a_broker_that_was_stopped_leaves_no_process(running_kafka: RunningKafka) -> None:
    running_kafka.server.start()
    group = running_kafka.server.pid
    running_kafka.server.stop()
    assert group is not None
    assert processes.members(group) == []
