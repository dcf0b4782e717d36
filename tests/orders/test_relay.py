"""The relay: everything is told in order, by however many, killed at whatever moment; listeners end up right."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest
from confluent_kafka import TopicPartition

from edge_service.log import logger
from orders import outbox, stock
from orders.database import connect
from orders.relay import Relay, Row
from orders.stock import Left
from orders.telling import EVENT_ID, KafkaTeller, WebhookTeller
from streams import broker
from tandem.regions import Region
from tandem.settings import Settings
from tests.orders.conftest import DELTA_KEY, EAST, WEST, settings_for, stocked

pytestmark = pytest.mark.servers

ONE_SERVER = pytest.mark.parametrize("postgres", ["wheel"], indirect=True)
"""What takes long and is about the listener is not asked of every PostgreSQL."""
SKUS = [f"sku-{number}" for number in range(40)]


class Collected:
    """A listener in this process."""

    def __init__(self, seconds: float = 0.0, rows: list[Row] | None = None) -> None:
        self.rows = [] if rows is None else rows
        """In the order in which they were told, to whomever shares the list."""
        self._seconds = seconds

    def tell(self, rows: Sequence[Row]) -> tuple[str, ...]:
        time.sleep(self._seconds)
        self.rows += rows
        return ()


def write(dsn: str, transactions: int, writers: int = 1, pause_seconds: float = 0.0) -> None:
    """Stock changes of some products, as checkouts make them: under the row's lock, told in the same transaction."""

    def one(writer: int) -> None:
        chance = random.Random(writer)
        with connect(dsn) as connection:
            for _ in range(transactions // writers):
                with connection.transaction():
                    _sell(connection, chance.sample(SKUS, 2))
                time.sleep(pause_seconds)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(one, range(writers)))


def _sell(connection: psycopg.Connection[Any], skus: Sequence[str]) -> None:
    connection.execute(stock._LOCK, ["east", sorted(skus)])
    sold = connection.execute(stock._CHANGE, [sorted(skus), [-1, -1], [0, 0], "east"]).fetchall()
    connection.execute(outbox.PUT, outbox.columns(stock.changed("east", [Left(*row) for row in sold])))


def of_postgres(dsn: str) -> dict[str, tuple[int, int]]:
    """What can be sold, and its sequence, by SKU."""
    with psycopg.connect(dsn) as connection:
        return {
            sku: (left, at)
            for sku, left, at in connection.execute(
                "SELECT sku, on_hand - reserved, sequence FROM stock WHERE region = 'east'"
            )
        }


def waiting(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM outbox WHERE told_at IS NULL").fetchall()
    return int(count)


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def in_order(told: Sequence[dict[str, Any]]) -> bool:
    """Whether no product's sequence ever goes back."""
    last: dict[str, int] = {}
    for each in told:
        if each["sequence"] < last.get(each["sku"], 0):
            return False
        last[each["sku"]] = each["sequence"]
    return True


@pytest.fixture
def full(dsn: str) -> str:
    """The address of a database with much of each product."""
    stocked(dsn, **dict.fromkeys(SKUS, 100_000))
    return dsn


def run(dsn: str, teller: Any) -> Relay:
    """A relay until nothing waits."""
    relay = Relay(dsn, teller, 7, logger())
    with connect(dsn) as connection:
        while relay.turn(connection):
            pass
    return relay


def test_every_message_is_told_once_and_in_order_and_then_never_again(full: str) -> None:
    write(full, 200)
    heard = Collected()
    assert run(full, heard).told == 400
    assert run(full, heard).told == 0
    told = [json.loads(row.value) for row in heard.rows]
    assert in_order(told)
    assert len({row.event_id for row in heard.rows}) == len(heard.rows) == 400
    last = {each["sku"]: (each["stock"], each["sequence"]) for each in told}
    assert {sku: of_postgres(full)[sku] for sku in last} == last


def test_relays_at_once_share_the_work_and_keep_each_products_order(full: str) -> None:
    heard: list[Row] = []
    stop = threading.Event()
    relays = [Relay(full, Collected(0.01, heard), 7, logger()) for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        for relay in relays:
            pool.submit(relay.run, stop)
        write(full, 600, writers=3)
        until(lambda: waiting(full) == 0)
        stop.set()
    print("told by each:", [relay.told for relay in relays])
    assert len(heard) == len({row.event_id for row in heard}) == 1_200
    assert in_order([json.loads(row.value) for row in heard])
    assert sum(relay.told > 0 for relay in relays) > 1


def test_what_was_not_taken_is_told_anew(full: str) -> None:
    class Refuses(Collected):
        def tell(self, rows: Sequence[Row]) -> tuple[str, ...]:
            return ("east",)

    write(full, 10)
    assert run(full, Refuses()).told == 0
    assert run(full, Collected()).told == 20


def test_a_region_that_is_away_holds_up_no_other(full: str) -> None:
    stocked(full, "west", tea=5)
    with connect(full) as connection:
        connection.execute(outbox.PUT, outbox.columns(stock.changed("west", [Left("tea", 5, 1, _now(connection))])))
    write(full, 10)

    class EastIsAway(Collected):
        def tell(self, rows: Sequence[Row]) -> tuple[str, ...]:
            self.rows += [row for row in rows if row.region == "west"]
            return ("east",)

    heard = EastIsAway()
    assert run(full, heard).told == len(heard.rows) == 1
    assert waiting(full) == 20


def _now(connection: psycopg.Connection[Any]) -> Any:
    ((now,),) = connection.execute("SELECT now()").fetchall()
    return now


def test_what_is_old_is_forgotten_and_what_waits_is_kept(full: str) -> None:
    write(full, 10)
    run(full, Collected())
    write(full, 5)
    with connect(full) as connection:
        connection.execute("UPDATE outbox SET told_at = told_at - interval '8 days'")
        for key, days in (("old", 8), ("new", 6)):
            connection.execute(
                "INSERT INTO idempotency_keys (scope, key, asked, made_at) "
                "VALUES ('s', %s, '', now() - make_interval(days => %s))",
                [key, days],
            )
        connection.commit()
        assert Relay(full, Collected(), 7, logger()).prune(connection) == 21
        assert connection.execute("SELECT key FROM idempotency_keys").fetchall() == [("new",)]
    assert waiting(full) == 10


@dataclass
class Edge:
    """A listener with an edge's webhook, which remembers all that it was told."""

    url: str
    told: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    status: int = 200
    pause_seconds: float = 0.0
    """Between taking and answering: who is killed then has told and not marked."""


@pytest.fixture
def edge() -> Iterator[Edge]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.keys.add(f"{self.path} {self.headers['Authorization']}")
            if found.status == 200:
                found.told += [json.loads(line) for line in body.splitlines()]
                time.sleep(found.pause_seconds)
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Edge(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def at(region: Region, url: str) -> Region:
    return msgspec.structs.replace(region, edge_url=url)


def test_without_kafka_the_regions_webhook_is_told_with_its_key(full: str, edge: Edge, tmp_path: Path) -> None:
    write(full, 20)
    teller = WebhookTeller(settings_for(tmp_path, full), [at(EAST, edge.url), at(WEST, edge.url)], logger())
    assert run(full, teller).told == 40
    assert edge.keys == {f"/v1/east/deltas Bearer {DELTA_KEY}"}
    assert set(edge.told[0]) == {"sku", "stock", "sequence", "at"}
    assert in_order(edge.told)


@pytest.mark.parametrize("status", [503, 401])
def test_an_edge_that_takes_nothing_is_told_later(full: str, edge: Edge, tmp_path: Path, status: int) -> None:
    write(full, 20)
    edge.status = status
    teller = WebhookTeller(settings_for(tmp_path, full), [at(EAST, edge.url)], logger())
    assert run(full, teller).told == 0
    edge.status = 200
    assert run(full, teller).told == len(edge.told) == 40


CONFIG = """
[[region]]
name = "east"
currency = "USD"
time_zone = "UTC"
redis_url = "redis://127.0.0.1:1/0"
edge_url = "{edge}"
[region.object_store]
endpoint = "http://127.0.0.1:1"
bucket = "none"
public_url = "http://127.0.0.1:1/none"
"""


def start(dsn: str, home: Path, **more: str) -> subprocess.Popen[bytes]:
    """A relay as a process that is at work."""
    environment = {**os.environ, "TANDEM_HOME": str(home), "TANDEM_ORDERS": dsn, "TANDEM_DELTA_KEYS": DELTA_KEY, **more}
    file = home / f"relay-{uuid4()}.log"
    with file.open("wb") as log:
        made = subprocess.Popen(
            [sys.executable, "-u", "-m", "tandem.cli", "relay"], env=environment, stdout=log, stderr=log
        )
    until(lambda: b"relay: to" in file.read_bytes())
    return made


def killed_again_and_again(dsn: str, home: Path, kills: int, **more: str) -> None:
    """Two relays while others write; the older one is killed and another started, at random moments of their work."""
    chance = random.Random(7)
    relays = [start(dsn, home, **more), start(dsn, home, **more)]
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write, dsn, 3_000, 3, 0.003 * kills)
        for _ in range(kills):
            time.sleep(0.2 + chance.random())
            victim = relays.pop(0)
            victim.send_signal(signal.SIGKILL)
            assert victim.wait() == -signal.SIGKILL
            relays.append(start(dsn, home, **more))
        writing.result()
    until(lambda: waiting(dsn) == 0)
    for relay in relays:
        relay.terminate()
        assert relay.wait(20) == 0


@ONE_SERVER
def test_killed_at_random_moments_nothing_is_lost_and_what_is_doubled_is_known_by_its_sequence(
    full: str, edge: Edge, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "regions.toml").write_text(CONFIG.format(edge=edge.url), encoding="ascii")
    edge.pause_seconds = 0.1
    killed_again_and_again(full, tmp_path, 4)
    held: dict[str, tuple[int, int]] = {}
    distinct = set()
    for each in edge.told:
        distinct.add((each["sku"], each["sequence"]))
        if each["sequence"] > held.get(each["sku"], (0, 0))[1]:
            held[each["sku"]] = each["stock"], each["sequence"]
    print(f"4 relays killed: {len(edge.told)} told, {len(distinct)} distinct, {len(edge.told) - len(distinct)} twice")
    assert len(edge.told) > len(distinct) == 6_000
    assert held == of_postgres(full)


def heard_by_kafka(kafka: Settings, topic: str) -> list[Any]:
    """Every message of a topic, partition by partition."""
    listener = broker.consumer(kafka, "test-relay")
    name = kafka.topic_prefix + topic
    found = []
    for partition in listener.list_topics(name, timeout=10).topics[name].partitions:
        place = TopicPartition(name, partition, 0)
        listener.assign([place])
        _, end = listener.get_watermark_offsets(place, timeout=10)
        while end and listener.position([place])[0].offset < end:
            found += [message for message in listener.consume(1_000, 1.0) if message.error() is None]
    listener.close()
    return found


@ONE_SERVER
def test_kafka_hears_each_message_in_the_order_of_its_product(full: str, kafka: Settings) -> None:
    write(full, 300, writers=3)
    assert run(full, KafkaTeller(kafka)).told == 600
    heard = heard_by_kafka(kafka, "inventory")
    assert len({dict(message.headers())[EVENT_ID] for message in heard}) == len(heard) == 600
    assert {dict(message.headers())["type"] for message in heard} == {b"stock-changed"}
    assert in_order([json.loads(message.value()) for message in heard])
    assert all(message.key().decode() == f"east:{json.loads(message.value())['sku']}" for message in heard)


class EndsAfterTelling:
    """A relay's process that ends between telling and marking, some times."""

    def __init__(self, teller: KafkaTeller, times: int) -> None:
        self._teller, self._left = teller, times

    def tell(self, rows: Sequence[Row]) -> Any:
        told = self._teller.tell(rows)
        if self._left:
            self._left -= 1
            raise KeyboardInterrupt
        return told


@ONE_SERVER
def test_what_was_told_and_not_marked_is_told_again_with_the_same_event_id(full: str, kafka: Settings) -> None:
    write(full, 50)
    teller = EndsAfterTelling(KafkaTeller(kafka), 2)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(full, teller)
    run(full, teller)
    heard = heard_by_kafka(kafka, "inventory")
    events = {dict(message.headers())[EVENT_ID]: json.loads(message.value()) for message in heard}
    print(f"{len(heard)} in Kafka, {len(events)} distinct, {len(heard) - len(events)} passed over")
    assert len(heard) > len(events) == 100
    last = {each["sku"]: (each["stock"], each["sequence"]) for each in sorted(events.values(), key=_sequence)}
    assert {sku: of_postgres(full)[sku] for sku in last} == last


def _sequence(told: dict[str, Any]) -> int:
    return int(told["sequence"])


@ONE_SERVER
def test_relays_killed_while_they_tell_kafka_lose_nothing_and_double_nothing_for_who_looks_at_the_event_id(
    full: str, kafka: Settings, tmp_path: Path
) -> None:
    killed_again_and_again(full, tmp_path, 3, TANDEM_KAFKA=kafka.kafka, TANDEM_TOPIC_PREFIX=kafka.topic_prefix)
    heard = heard_by_kafka(kafka, "inventory")
    known: dict[bytes, dict[str, Any]] = {}
    for message in heard:
        known.setdefault(dict(message.headers())[EVENT_ID], json.loads(message.value()))
    print(f"3 relays killed: {len(heard)} in Kafka, {len(known)} distinct, {len(heard) - len(known)} passed over")
    assert len(known) == 6_000
    last: dict[str, tuple[int, int]] = {}
    for each in known.values():
        last[each["sku"]] = max(last.get(each["sku"], (0, 0)), (each["sequence"], each["stock"]))
    assert {sku: (left, at) for sku, (at, left) in last.items()} == of_postgres(full)
