"""Three brokers by settings alone: with one of them killed, changes go on and none is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks._streams_world import World, until
from deploy import kafka, services
from streams import broker
from tandem.settings import Settings

pytestmark = pytest.mark.servers


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Settings]:
    ports = services.free_ports(3)
    found = Settings(home=tmp_path, kafka=",".join(f"127.0.0.1:{port}" for port in ports), kafka_replication=3)
    kafka.fetch(found, print)
    nodes = kafka.brokers(found)
    try:
        services.start_all(found, nodes, print)
        yield found
    finally:
        services.stop(nodes, print)


def test_one_of_three_brokers_may_die_while_changes_flow(three: Settings, redis_url: str, tmp_path: Path) -> None:
    broker.make_topics(three, print)
    world = World(three, {"north": redis_url}, tmp_path)
    try:
        projecting = world.projecting()
        until(lambda: "reads 12 partitions" in projecting.said)
        world.send(world.changes(1_000))
        (second,) = [server for server in kafka.brokers(three) if server.name == "kafka-2"]
        assert second.pid is not None
        os.killpg(second.pid, signal.SIGKILL)
        world.send(world.changes(1_000))
        world.wait()
        read, doubled = sum(world.places().values()), [told for told, times in world.counted().items() if times > 1]
        print(f"one of three brokers killed: 2000 sent, {read} read, {len(doubled)} doubled")
        assert (read, doubled) == (2_000, [])
    finally:
        world.close()
